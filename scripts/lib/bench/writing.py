"""Part `write`: changes in writable mounts.

The model: all peers get the same two lowers (a generated tree and one big file) and, for every
run, a new empty upper and work directory on the same file system; strata is `strata-overlay`, the
drop-in for fuse-overlayfs. `strata kernel` is `strata mount --backend kernel --upper` on an image of
the same lowers, its upper in a store beside the other uppers; `overlayfs metacopy` is overlayfs with
the options that such a mount has, metacopy=on and redirect_dir=on. Before a run, outside of the
measured time, dirty pages are written out and deleted inodes forgotten (`forget_deleted`). Only the work is timed, not the mount. After
`chown -R` the part measures how much data was copied to the upper. During the copy-up of the big
file another process looks up an absent name every millisecond; its slowest answer is a row of its
own. So is a copy-up with a sync of the file after it, for some peers sync before that and others do
not. A small copy-up appends a byte to each file. The uppers of storms are on a new ext4 with a
journal, and on tmpfs: without a journal, as on some virtual machines, ext4 looks at every inode
that any process deleted in the last minutes before it makes one.

fio's figures are the seconds for a fixed number of bytes, computed from its bandwidth. fio counts
whole milliseconds: work on the cache reads or writes enough bytes to take many of them.
All peers work on the same file, in turns, for a file's place on the disk made more of a
difference than the peer. The file is written once before: on a virtual machine the host has to give
the memory of a new one, which takes 0.1 s or 1.5 for the same bytes. If the work is on the cache,
the file is in memory, for the mount as well; if the work is cold, it is only on the disk.

Changed files are listed in a mount of the upper that the same peer has filled, with metacopies
or copies, as that peer makes them; the host has its directories and inodes in memory.
"""
import json
import os
import shutil
import subprocess
import time

import generate
from importing import used
from measure import (Failed, drop_caches, forget_deleted, give_memory, interleave,
                     interleave_many, read_all, run, sample, settle, wanted)
from peers import Mount

FIO = {
    "fio: sequential write": ["--rw=write", "--bs=1M", "--loops=4"],
    "fio: sequential read": ["--rw=read", "--bs=1M", "--loops=4"],
    "fio: random write": ["--rw=randwrite", "--bs=4k", "--io_size={quarter}"],
    "fio: random read": ["--rw=randread", "--bs=4k"],
    "fio: mmap random write": ["--rw=randwrite", "--bs=4k", "--ioengine=mmap"],
    "fio: mmap random read": ["--rw=randread", "--bs=4k", "--ioengine=mmap"],
    "fio: O_DIRECT sequential write": ["--rw=write", "--bs=1M", "--direct=1", "--loops=4"],
    "fio: O_DIRECT sequential read": ["--rw=read", "--bs=1M", "--direct=1", "--loops=4"],
    "fio: O_DIRECT random write": ["--rw=randwrite", "--bs=4k", "--direct=1",
                                   "--io_size={direct}"],
    "fio: O_DIRECT random read": ["--rw=randread", "--bs=4k", "--direct=1", "--io_size={direct}"],
    "fio: O_DIRECT sequential read, cold": ["--rw=read", "--bs=1M", "--direct=1"],
    "fio: O_DIRECT random read, cold": ["--rw=randread", "--bs=4k", "--direct=1",
                                        "--io_size={direct}"],
}
NAMES = ["overlayfs", "strata", "fuse-overlayfs 1", "fuse-overlayfs 2", "overlayfs metacopy",
         "strata kernel"]


class Lowers:
    """The lowers and the rest of the input, made once."""

    def __init__(self, bench, work):
        self.bench, self.work, self.number = bench, work, 0
        files = 500 if bench.quick else 5_000
        self.big = (64 if bench.quick else 1024) << 20
        make = bench.inputs.make
        self.tree = make("lower-tree-%d" % (2 * files),
                         lambda path: self.make_tree(path, 2 * files))
        self.archive = make("files-%d.tar" % files, lambda path: self.make_tar(path, files))
        self.repository = make("git-%d" % files, lambda path: generate.repository(path, files))
        self.bigdir = make("lower-big-%d" % self.big, self.make_big)
        # The image of the lowers in the store of each directory of uppers.
        self.images = {}

    def make_tar(self, path, entries):
        with open(path, "wb") as out:
            for member in generate.tree(7, entries):
                out.write(member)
            out.write(b"\0" * 1024)

    def make_tree(self, path, entries):
        os.makedirs(path)
        self.make_tar(path + ".tar", entries)
        run("tar", "-xf", path + ".tar", "-C", path)
        os.unlink(path + ".tar")

    def make_big(self, path):
        os.makedirs(path)
        block = generate.random.Random(2).randbytes(1 << 20)
        with open(path + "/big", "wb") as out:
            for _ in range(self.big >> 20):
                out.write(block)

    def mount(self, peer, below=None, upper=None):
        """A writable mount. Its upper is `upper`, or a new one, in `below` or beside the lowers:
        `mount.upper`."""
        self.number += 1
        base = os.path.join(below or self.work, "%s-%03d" % (peer.replace(" ", "-"), self.number))
        upper_given, upper = upper, upper or base + "/upper"
        for path in (upper, base + "/work", base + "/mnt"):
            os.makedirs(path, exist_ok=True)
        if peer == "strata kernel":
            return self.mount_in_kernel(base, below, upper_given)
        options = "lowerdir=%s:%s,upperdir=%s,workdir=%s/work" % (
            self.bigdir, self.tree, upper, base)
        if peer == "overlayfs metacopy":
            options += ",metacopy=on,redirect_dir=on"
        command = {
            "overlayfs": ["mount", "-t", "overlay", "overlay"],
            "overlayfs metacopy": ["mount", "-t", "overlay", "overlay"],
            "strata": [self.bench.strata_overlay],
            "fuse-overlayfs 1": ["fuse-overlayfs"],
            "fuse-overlayfs 2": [self.bench.fuse_overlayfs_2],
        }[peer] + ["-o", options, base + "/mnt"]
        mount = Mount(command, base + "/mnt", not peer.startswith("overlayfs"))
        mount.upper = upper
        return mount

    def store(self, below=None):
        """The store whose uppers are in a directory."""
        return os.path.join(below or self.work, "store")

    def mount_in_kernel(self, base, below, upper):
        """The same lowers as an image of one layer, mounted by `strata mount --backend kernel`; in
        a directory of its own without the big file."""
        store = self.store(below)
        strata = [self.bench.strata, "--root", store]
        if store not in self.images:
            archive = os.path.join(below or self.work, "lowers.tar")
            run("tar", "-cf", archive, "-C", self.tree, ".",
                *([] if below else ["-C", self.bigdir, "big"]))
            self.images[store] = run(*strata, "-q", "import", archive, "lowers:1").split()[-1]
            os.unlink(archive)
        name = os.path.basename(os.path.dirname(upper) if upper else base)
        mount = Mount([*strata, "mount", "--backend", "kernel", "--upper", name, self.images[store],
                       base + "/mnt"], base + "/mnt", False)
        mount.upper = os.path.join(store, "uppers", name, "upper")
        return mount


def measure(bench, part, work, sections):
    """Runs the given sections."""
    part.absent("squashfuse, write", "cannot be written")
    part.absent("erofsfuse, write", "cannot be written")
    lowers = Lowers(bench, work)
    for section in sections:
        {"trees": trees, "storm": storm, "fio": fio, "sqlite": sqlite,
         "copy-up": copy_up}[section](bench, part, lowers)


def one(bench, part, section, work, lowers, act, *, below=None, repeat=None, given="",
        reads=None, keep=True, deletes=True):
    """A row: act(mount) in a new mount for each run, with what it `reads` in memory (default: all
    but the big file). Uppers that would fill the disk are not kept until the end. Where what was
    deleted costs nothing, for there is a journal or no disk, `deletes` is false."""
    if not wanted(work):
        return
    repeat = repeat or bench.repeat
    reads = reads or (lowers.tree, lowers.archive, lowers.repository)

    def case(peer):
        mount = lowers.mount(peer, below)
        try:
            stored = [lowers.store(below)] if peer == "strata kernel" else []
            if deletes:
                forget_deleted(*reads, *stored, bench.strata_overlay, bench.fuse_overlayfs_2,
                               bench.client)
            else:
                settle()
            got = act(mount)
            return dict(got, daemon_cpu=mount.cpu(), upper_kb=used(mount.upper))
        finally:
            mount.end()
            if not keep:
                shutil.rmtree(mount.upper)
    got, failed = interleave(repeat, {p: lambda p=p: case(p) for p in NAMES})
    part.row(section, work, got, failed, "", given, repeat=repeat)


def trees(bench, part, lowers):
    works = {
        "unpack files": ["tar", "-xf", lowers.archive],
        "git clone": ["git", "clone", "-q", "--no-hardlinks", lowers.repository, "clone"],
        "rm -rf of a lower tree": ["rm", "-rf", "t"],
        "chown -R of a lower tree": ["chown", "-R", "1:1", "t"],
    }
    read_all(lowers.tree)
    for work, command in works.items():
        if work == "unpack files":
            command = ["sh", "-ec", 'mkdir new && exec "$@" -C new', "sh", *command]
        one(bench, part, "trees", work, lowers, lambda m, c=command: sample(c, cwd=m.target))
    listing(bench, part, lowers)


def listing(bench, part, lowers):
    """`find -ls` of a lower tree in which the owner of each file has changed, and of new files."""
    if not wanted("find -ls"):
        return
    uppers = {}

    def case(peer):
        if peer not in uppers:
            mount = lowers.mount(peer)
            try:
                run("chown", "-R", "1:1", mount.target + "/t")
                run("tar", "--one-top-level=" + mount.target + "/new", "-xf", lowers.archive)
            finally:
                mount.end()
            uppers[peer] = mount.upper
        sample(["find", uppers[peer], lowers.tree, "-ls"])
        settle()
        mount = lowers.mount(peer, upper=uppers[peer])
        try:
            got = sample(["find", "t", "new", "-ls"], cwd=mount.target)
            return dict(got, daemon_cpu=mount.cpu())
        finally:
            mount.end()
    got, failed = interleave(bench.repeat, {p: lambda p=p: case(p) for p in NAMES})
    part.row("trees", "find -ls of what has changed", got, failed, "", "", repeat=bench.repeat)


def storm(bench, part, lowers):
    def act(mount):
        os.mkdir(os.path.join(mount.target, "new"))
        return sample([bench.client, "storm", "new", "2000"], cwd=mount.target)
    work, repeat = "create, write, stat, unlink", 3 * bench.repeat
    image = os.path.join(lowers.work, "ext4.img")
    with open(image, "wb") as file:
        file.truncate(4 << 30)
    run("mkfs.ext4", "-q", image)
    for name, mount in ((work, ["-o", "loop", image]),
                        (work + ", upper on tmpfs", ["-t", "tmpfs", "tmpfs"])):
        below = os.path.join(lowers.work, "uppers")
        os.makedirs(below, exist_ok=True)
        run("mount", *mount, below)
        try:
            one(bench, part, "storm", name, lowers, act, below=below, repeat=repeat,
                deletes=False)
        finally:
            lowers.images.pop(lowers.store(below), None)
            run("umount", below)
    os.unlink(image)


def fio(bench, part, lowers):
    size = (32 if bench.quick else 512) << 20
    # The first mount makes the upper and the file for all. Only in a store does the kernel's mount of
    # strata find it.
    first = lowers.mount("strata kernel")
    fio_run(first.target, size, ["--rw=write", "--bs=1M"])
    first.end()

    def case(peer, work):
        args = FIO[work]
        if work.endswith("cold"):
            drop_caches()
        else:
            read_all(first.upper)
        mount = lowers.mount(peer, upper=first.upper)
        try:
            if "--direct=1" not in args:
                read_all(os.path.join(mount.target, "fio"))
            settle()
            return fio_run(mount.target, size, args)
        finally:
            mount.end()
    give_memory()
    for work in filter(wanted, FIO):
        got, failed = interleave(bench.repeat, {p: lambda p=p, w=work: case(p, w) for p in NAMES})
        part.row("fio", work, got, failed, "", "", repeat=bench.repeat)
    shutil.rmtree(first.upper)


def fio_run(target, size, args):
    """Seconds for the bytes of one fio job."""
    args = [arg.format(quarter=size // 4, direct=size // 8) for arg in args]
    said = run("fio", "--name=job", "--filename=%s/fio" % target, "--size=%d" % size,
               "--ioengine=psync", "--invalidate=0", "--fallocate=none", "--thread",
               "--output-format=json", *args)
    job = json.loads(said[said.index("{"):])["jobs"][0]
    if job["error"]:
        raise Failed("fio: error %d" % job["error"])
    side = job["write" if "write" in args[0] else "read"]
    return {"value": side["io_bytes"] / side["bw_bytes"]}


def sqlite(bench, part, lowers):
    count = 50 if bench.quick else 300
    script = "pragma synchronous=full; create table t(a integer primary key, b text);" + "".join(
        "insert into t(b) values('%s');" % ("row %d " % n * 20) for n in range(count))
    path = os.path.join(lowers.work, "inserts.sql")
    with open(path, "w", encoding="ascii") as file:
        file.write(script)
    command = ["sh", "-ec", "exec sqlite3 bench.db < %s" % path]
    one(bench, part, "sqlite", "inserts with fsync", lowers,
        lambda mount: sample(command, cwd=mount.target))


def copy_up(bench, part, lowers):
    read_all(lowers.bigdir)

    def case(peer):
        mount = lowers.mount(peer)
        try:
            give_memory()
            stop = os.path.join(lowers.work, "stop")
            with subprocess.Popen([bench.client, "probe", ".", "120", stop], cwd=mount.target,
                                  stdout=subprocess.PIPE, text=True) as probe:
                time.sleep(0.1)
                got = sample(["sh", "-c", "printf x >> big"], cwd=mount.target)
                with open(stop, "wb"):
                    said = probe.stdout.read().split()
            os.unlink(stop)
            if len(said) != 2:
                raise Failed("the probe beside the copy-up failed")
            return {"copy-up of the big file": dict(got, upper_kb=used(mount.upper)),
                    "slowest lookup meanwhile": {"value": float(said[0]) / 1e3,
                                                 "median_lookup": float(said[1]) / 1e3}}
        finally:
            mount.end()
            shutil.rmtree(mount.upper)
    peers = NAMES if wanted("copy-up of the big file") else []
    rows, failed = interleave_many(bench.repeat, {p: lambda p=p: case(p) for p in peers})
    size = "%d MiB" % (lowers.big >> 20)
    for work, got in rows.items():
        part.row("copy-up", work, got, failed, "", size, repeat=bench.repeat)
    files = os.path.join(lowers.work, "files")
    count = 100 if bench.quick else 1000
    with open(files, "w", encoding="ascii") as out:
        out.writelines(path + "\n" for path in files_of(lowers.tree)[:count])
    for work, given, script in (
            ("copy-up of the big file, synced", size, "printf x >> big; exec sync big"),
            ("copy-up of small files", "%d files" % count,
             'while read -r file; do printf x >> "$file"; done < ' + files)):
        def act(mount, command=("sh", "-ec", script)):
            give_memory()
            return sample(command, cwd=mount.target)
        one(bench, part, "copy-up", work, lowers, act, given=given,
            reads=(lowers.tree, lowers.bigdir), keep=False)


def files_of(tree):
    """The regular files of a tree, by their paths in it."""
    found = [os.path.join(where, name) for where, _, names in os.walk(tree) for name in names]
    return sorted(os.path.relpath(path, tree) for path in found
                  if os.path.isfile(path) and not os.path.islink(path))
