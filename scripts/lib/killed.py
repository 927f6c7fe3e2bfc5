#!/usr/bin/env python3
"""Kills strata-overlay at random moments of a writer's work, and checks what is left.

usage: killed.py STRATA-OVERLAY SEED COUNT

Works in the current directory. The writer is another process, which writes what it is about to do
and what is done to a journal outside of the mount; an upper is used for five kills. After each:

* a file has at least the bytes that it had at its last fsync, and none that were never written;
* a lower's file has its old bytes or all of the new ones, the new ones if fsync succeeded, and
  the same ones under each of its names;
* a renamed directory is at its old or its new place, with all that is in it;
* nothing is left in the work directory, the lower is unchanged, and overlayfs shows the same.
"""
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys

from asoverlay import LIB, differences

ROUNDS_OF_AN_UPPER = 5
PLAIN, LINKED, DIRS = 60, 12, 6
OPTIONS = "lowerdir=lower,upperdir=upper,workdir=work"


def pattern(name, length):
    """The content of the file of this name."""
    return random.Random(name).randbytes(length)


def old_bytes(name):
    return pattern("old " + name, 1 + random.Random(name).randrange(1, 60) ** 3)


def new_bytes(name):
    """A writer's change of a lower's file: a byte in the middle changes, and its end grows."""
    old = bytearray(old_bytes(name))
    old[len(old) // 2] ^= 0xFF
    return bytes(old) + b"new"


def lower_files():
    """Every file of the lower with all its names; a directory is given by its number."""
    files = {"p%d" % n: [(n % DIRS, "p%d" % n)] for n in range(PLAIN)}
    for n in range(LINKED):
        files["h%d" % n] = [((n + i) % DIRS, "h%d-%d" % (n, i)) for i in range(3)]
    return files


def make_lower():
    for n in range(DIRS):
        os.makedirs("lower/r%d" % n)
    for name, ((first, base), *others) in lower_files().items():
        with open("lower/r%d/%s" % (first, base), "wb") as file:
            file.write(old_bytes(name))
        for where, other in others:
            os.link("lower/r%d/%s" % (first, base), "lower/r%d/%s" % (where, other))


def write_all(fd, data):
    while data:
        data = data[os.write(fd, data):]


class Writer:
    """Changes the mount until it is unmounted. `places`: where the directories are."""

    def __init__(self, seed, places, first):
        self.rng = random.Random(seed)
        self.places, self.next = places, first
        self.journal = os.open("journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def tell(self, *what):
        os.write(self.journal, (json.dumps(what) + "\n").encode())

    def path(self, where, name):
        return "merged/%s/%s" % (self.places[where], name)

    def create(self):
        where, name = self.rng.randrange(DIRS), "n%d" % self.next
        self.next += 1
        self.tell("create", where, name)
        fd = os.open(self.path(where, name), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND)
        length, want = 0, pattern(name, 200000)
        for _ in range(self.rng.randrange(1, 6)):
            more = self.rng.randrange(1, 40000)
            write_all(fd, want[length:length + more])
            length += more
            if self.rng.random() < 0.7:
                os.fsync(fd)
                self.tell("synced", name, length)
        os.close(fd)

    def copy_up(self):
        name, places = self.rng.choice(sorted(lower_files().items()))
        want = new_bytes(name)
        self.tell("change", name)
        fd = os.open(self.path(*self.rng.choice(places)), os.O_RDWR)
        # From the middle on, in one call, so that there is no state between old and new.
        middle = (len(want) - 3) // 2
        if self.rng.random() < 0.8:
            os.pwrite(fd, want[middle:], middle)
            os.fsync(fd)
            self.tell("changed", name)
        os.close(fd)

    def metadata(self):
        name, places = self.rng.choice(sorted(lower_files().items()))
        os.chmod(self.path(*self.rng.choice(places)), self.rng.choice([0o600, 0o644, 0o4755]))

    def rename(self):
        where = self.rng.randrange(DIRS)
        new = "%s%d" % (self.rng.choice("rst"), where)
        if new != self.places[where]:
            self.tell("rename", where, new)
            os.rename("merged/" + self.places[where], "merged/" + new)
            self.places[where] = new
            self.tell("renamed", where, new)

    def run(self):
        calls = [self.create, self.copy_up, self.copy_up, self.metadata, self.rename]
        while True:
            self.rng.choice(calls)()


class Expected:
    """The states that the journals of an upper allow."""

    def __init__(self):
        self.places = {n: ["r%d" % n] for n in range(DIRS)}
        self.files, self.changes, self.created = {}, {}, 0

    def read(self):
        with open("journal", encoding="utf-8") as journal:
            for what, *rest in map(json.loads, journal):
                match what, rest:
                    case "create", [where, name]:
                        self.files[name] = [where, None]
                        self.created += 1
                    case "synced", [name, length]:
                        self.files[name][1] = length
                    case "change", [name]:
                        self.changes.setdefault(name, False)
                    case "changed", [name]:
                        self.changes[name] = True
                    case "rename", [where, new]:
                        self.places[where].append(new)
                    case "renamed", [where, new]:
                        self.places[where] = [new]
        os.unlink("journal")

    def check(self):
        for where, places in self.places.items():
            there = [place for place in sorted(set(places)) if os.path.isdir("merged/" + place)]
            assert len(there) == 1, "directory %d is at %s, may be at %s" % (where, there, places)
            self.places[where] = there
        for name in list(self.files):
            where, length = self.files[name]
            path = "merged/%s/%s" % (self.places[where][0], name)
            if length is None and not os.path.exists(path):
                del self.files[name]
                continue
            with open(path, "rb") as file:
                seen = file.read()
            assert len(seen) >= (length or 0), "%s has lost synced bytes: %d of %d" % (
                path, len(seen), length)
            assert seen == pattern(name, 200000)[:len(seen)], path + " has bytes of nobody"
            self.files[name][1] = len(seen)
        for name, places in lower_files().items():
            paths = ["merged/%s/%s" % (self.places[where][0], base) for where, base in places]
            old, new, state = old_bytes(name), new_bytes(name), self.changes.get(name)
            allowed = {None: [old], False: [old, new], True: [new]}[state]
            inodes = set()
            for path in paths:
                with open(path, "rb") as file:
                    seen = file.read()
                assert seen in allowed, "%s (%s) has %d bytes: not the old %d, not the new" % (
                    path, state, len(seen), len(old))
                if seen == new and state is False:
                    allowed = [new]
                    self.changes[name] = True
                stat = os.stat(path)
                inodes.add((stat.st_ino, stat.st_nlink, stat.st_size, stat.st_mode))
            assert len(inodes) == 1 and inodes.pop()[1] == len(paths), "%s are not one: %s" % (
                paths, [os.stat(path) for path in paths])


def mount(overlay, options=OPTIONS, errors=None):
    """The daemon, in the foreground so that its process id is known, once it is mounted."""
    with open("/proc/self/mountinfo", encoding="utf-8") as table:
        changed = select.poll()
        changed.register(table, select.POLLPRI)
        daemon = subprocess.Popen([overlay, "-f", "-o", options, "merged"], stderr=errors)
        while not os.path.ismount("merged"):
            # The kernel reports every change of the mount table, but not the end of a daemon.
            changed.poll(1000)
            assert daemon.poll() is None, "strata-overlay has ended"
            table.seek(0)
            table.read()
    return daemon


def tree(path, *options):
    return subprocess.run([sys.executable, LIB + "/treesum.py", *options, path], check=True,
                          stdout=subprocess.PIPE, text=True).stdout


def attempt(overlay, seed, expected):
    rng = random.Random(seed)
    daemon = mount(overlay)
    places = [expected.places[n][0] for n in range(DIRS)]
    arguments = [json.dumps([seed, places, expected.created])]
    open("journal", "wb").close()
    writer = subprocess.Popen([sys.executable, __file__, "--write", *arguments],
                              stderr=subprocess.PIPE, text=True)
    try:
        # The random part is the moment of the kill.
        writer.wait(rng.choice([0.06, 0.2, 0.6]) + rng.random() * 0.2)
        raise AssertionError("the writer failed first: " + writer.stderr.read())
    except subprocess.TimeoutExpired:
        daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    writer.communicate()
    subprocess.run(["umount", "-l", "merged"], check=True)
    expected.read()
    daemon = mount(overlay)
    left = os.listdir("work/work")
    assert not left, "the work directory has %s" % left
    expected.check()
    seen = tree("merged", "--ignore-xattr", "trusted.overlay.")
    subprocess.run(["umount", "merged"], check=True)
    assert daemon.wait() == 0, "the daemon ended with %d" % daemon.returncode
    found = differences("upper", "lower", seen)
    assert not found, "%d differ from overlayfs:\n%s" % (len(found), "\n".join(found[:4]))


def main(overlay, seed, count):
    make_lower()
    before, failed, created, changed = tree("lower"), 0, 0, 0
    expected = Expected()
    for number in range(count):
        if number % ROUNDS_OF_AN_UPPER == 0:
            created += expected.created
            changed += len(expected.changes)
            expected = Expected()
            for name in ("upper", "work"):
                shutil.rmtree(name)
                os.mkdir(name)
        try:
            attempt(overlay, seed + number, expected)
        except (AssertionError, OSError, subprocess.CalledProcessError) as error:
            print("kill %d, seed %d: %r" % (number, seed + number, error), file=sys.stderr)
            failed += 1
            break
    assert tree("lower") == before, "the lower has changed"
    print("seeds %d to %d: %d files made, %d changed, %d kills failed" % (
        seed, seed + count - 1, created + expected.created, changed + len(expected.changes),
        failed))
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1] == "--write":
        try:
            Writer(*json.loads(sys.argv[2])).run()
        except ConnectionError:
            # The daemon has ended.
            pass
    else:
        sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
