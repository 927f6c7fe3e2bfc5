#!/usr/bin/env python3
"""Crashes the file system of an upper at random moments of a writer's work; checks what is left.

usage: crashed.py STRATA-OVERLAY SEED COUNT

Works in the current directory. The upper is on a file system of its own: ext4 and, where the
machine has them, XFS and btrfs in turns (cutdisk.py). It is shut down without flushing its journal, as by a power
failure, and mounted again. The writer renames nothing on btrfs, which can lose the whiteout that
a rename leaves, with overlayfs as well. Then

* a lower's file that was changed and synced has all bytes that were written;
* a file that was changed and not synced has the lower's bytes, or new ones where it was written;
* any other file has the lower's bytes, and so has the lower;
* nothing is left in the work directory, and overlayfs shows the same.

There are more crashes, up to five times COUNT, until one has cut a copy off.
"""
import os
import random
import signal
import subprocess
import sys
import time

from asoverlay import differences
from cutdisk import BTRFS, CutDisk, makers, run
from killed import mount, tree, write_all

FILES, GROUP = 24, 4
MARK = "trusted.overlay.strata.origin"
UPPER, WORK = "disk/upper", "disk/work"
SIZE = 1 << 29


def read(path):
    with open(path, "rb") as file:
        return file.read()


def pattern(name, length):
    """Bytes of which no two blocks are the same, made quickly."""
    return (random.Random(name).randbytes(4099) * (length // 4099 + 1))[:length]


def old_bytes(name):
    rng = random.Random(name)
    return pattern("old " + name, 1 + rng.randrange(1 << rng.randrange(16, 25)))


def change(name):
    """The change of a writer: an offset in the middle, and the bytes from there on."""
    size = len(old_bytes(name))
    return size // 2, pattern("new " + name, 1 + size // 4)


def new_bytes(name):
    at, bytes_there = change(name)
    old = bytearray(old_bytes(name))
    old[at:at + len(bytes_there)] = bytes_there
    return bytes(old) + b"end"


def names(seed):
    return ["f%d-%d" % (seed, n) for n in range(FILES)]


def write(seed, renames):
    """Changes the files in groups, and syncs the first of each; prints what it is about to do and
    what is done. A sync writes the names of the others as well, but not their content."""
    rng = random.Random(seed)
    journal = os.open("journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    all_names = names(seed)
    while all_names:
        group, all_names = all_names[:GROUP], all_names[GROUP:]
        opened = [(name, change_one(journal, name)) for name in group]
        os.fsync(opened[0][1])
        os.write(journal, b"changed %s\n" % group[0].encode())
        for name, fd in opened:
            if renames and rng.random() < 0.2:
                os.rename("merged/" + name, "merged/%s.moved" % name)
            os.close(fd)
    os.write(journal, b"end\n")
    signal.pause()


def change_one(journal, name):
    os.write(journal, b"change %s\n" % name.encode())
    fd = os.open("merged/" + name, os.O_RDWR)
    at, bytes_there = change(name)
    os.lseek(fd, at, os.SEEK_SET)
    write_all(fd, bytes_there)
    os.lseek(fd, 0, os.SEEK_END)
    write_all(fd, b"end")
    return fd


def cut_off():
    """The number of copies in the upper that are not whole on disk."""
    count = 0
    for entry in os.scandir(UPPER):
        if not entry.is_file(follow_symlinks=False) or MARK not in os.listxattr(entry.path):
            continue
        size = len(old_bytes(entry.name.removesuffix(".moved")))
        stat = entry.stat()
        if os.getxattr(entry.path, MARK).endswith(b" unsynced"):
            count += stat.st_size < size or stat.st_blocks * 512 < size
    return count


def check(seed):
    """Checks every file; gives the number of synced ones."""
    with open("journal", encoding="utf-8") as journal:
        told = {line.split()[-1]: line.split()[0] for line in journal}
    for name in names(seed):
        paths = [path for path in ("merged/" + name, "merged/%s.moved" % name)
                 if os.path.exists(path)]
        assert len(paths) == 1, "%s is at %s" % (name, paths)
        seen = read(paths[0])
        old, new, state = old_bytes(name), new_bytes(name), told.get(name)
        if state == "changed":
            assert seen == new, "%s has lost what was synced" % name
        elif state is None:
            assert seen == old, "%s has changed by itself" % name
        elif seen not in (old, new):
            assert len(old) <= len(seen) <= len(new), "%s has %d bytes" % (name, len(seen))
            for at in range(0, len(seen), 4096):
                block = slice(at, min(at + 4096, len(seen)))
                if seen[block] in (old[block], new[block]):
                    continue
                # A changed block may have been written to disk with only half of the change.
                assert all(byte in pair for byte, *pair in zip(
                    seen[block], new[block], old[block].ljust(4096, b"\0"))), (
                        "%s: bytes of nobody from %d on" % (name, at))
    return sum(state == "changed" for state in told.values())


def attempt(overlay, seed):
    """One crash; how many copies it cut off, and how many were synced before."""
    rng = random.Random(seed)
    for name in names(seed):
        with open("lower/" + name, "wb") as file:
            file.write(old_bytes(name))
    before = tree("lower")
    every = list(makers().values())
    maker = every[seed % len(every)]
    disk = CutDisk(".", maker, SIZE)
    disk.make()
    for path in (UPPER, WORK):
        os.mkdir(path)
    os.sync()
    # It will report errors of its upper, as it should.
    daemon = mount(overlay, options(), subprocess.DEVNULL)
    open("journal", "wb").close()
    with subprocess.Popen([sys.executable, __file__, "--write", str(seed),
                           "" if maker == BTRFS else "rename"],
                          stderr=subprocess.DEVNULL) as writer:
        # The random part is the moment of the crash, after a line of the writer.
        word = rng.choice([b"change ", b"changed "])
        while word not in read("journal"):
            time.sleep(0.0005)
        time.sleep(rng.random() * rng.choice([0, 0.02, 0.2]))
        disk.shut_down()
        writer.kill()
        daemon.kill()
    daemon.wait()
    run("umount", "-l", "merged")
    disk.boot()
    count = cut_off()
    daemon = mount(overlay, options())
    left = os.listdir(WORK + "/work")
    assert not left, "the work directory has %s" % left
    synced = check(seed)
    seen = tree("merged", "--ignore-xattr", "trusted.overlay.")
    run("umount", "merged")
    assert daemon.wait() == 0, "the daemon ended with %d" % daemon.returncode
    found = differences(UPPER, "lower", seen)
    assert not found, "%d differ from overlayfs:\n%s" % (len(found), "\n".join(found[:4]))
    assert tree("lower") == before, "the lower has changed"
    disk.detach()
    for name in names(seed):
        os.unlink("lower/" + name)
    return count, synced


def options():
    return "lowerdir=lower,upperdir=%s,workdir=%s" % (UPPER, WORK)


def main(overlay, seed, count):
    number, cut, synced = 0, 0, 0
    try:
        while number < count or not cut and number < 5 * count:
            more = attempt(overlay, seed + number)
            number, cut, synced = number + 1, cut + more[0], synced + more[1]
    except (AssertionError, OSError, subprocess.CalledProcessError) as error:
        print("crash %d, seed %d: %r" % (number, seed + number, error), file=sys.stderr)
        return 1
    print("seeds %d to %d: %d copies were cut off, %d were synced before" % (
        seed, seed + number - 1, cut, synced))
    if cut == 0:
        print("no crash cut a copy off", file=sys.stderr)
    return 1 if cut == 0 else 0


if __name__ == "__main__":
    if sys.argv[1] == "--write":
        write(int(sys.argv[2]), bool(sys.argv[3]))
    else:
        sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
