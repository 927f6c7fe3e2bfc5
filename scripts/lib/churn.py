#!/usr/bin/env python3
"""Makes a lower, or changes a tree at random.

usage: churn.py lower DIR
       churn.py work DIR SEED COUNT

Names come from a small set, so that several workers on one tree often use the same name. A worker
ends with status 1 if a call fails in a way that this does not explain; at the end it
prints how many calls succeeded and how the others failed.
"""
import collections
import ctypes
import errno
import os
import random
import stat
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
NOREPLACE, EXCHANGE = 1, 2
# ENXIO, ENODEV: pipes without a reader, sockets and the device 0:0, which nothing drives.
EXPECTED = {errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR,
            errno.EINVAL, errno.ELOOP, errno.ENODATA, errno.EPERM, errno.ENXIO, errno.ENODEV,
            errno.ENAMETOOLONG}


def lower(root):
    rng = random.Random(1)
    os.chdir(root)
    dirs = ["d%d" % n for n in range(8)]
    dirs += ["%s/d%d" % (over, n) for over in dirs for n in range(4)]
    for n, where in enumerate(dirs):
        os.mkdir(where, 0o755)
        for i in range(10):
            path = "%s/f%d" % (where, i)
            if i == 9 and n > 0:
                # The names of one file are in several directories.
                os.link("%s/f%d" % (dirs[n - 1 - n % 3 if n > 2 else 0], n % 3), path)
                continue
            if i == 8:
                os.symlink("f%d" % (n % 8), path)
                continue
            with open(path, "wb") as file:
                file.write(rng.randbytes(rng.randrange(20000)))
            os.chmod(path, rng.choice([0o644, 0o600, 0o4755, 0o2750]))
            os.setxattr(path, "user.lower", b"%d" % n)
    for where in dirs:
        os.utime(where, ns=(10 ** 18, 10 ** 18 + len(where)))


def rename2(old, new, flags):
    if LIBC.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), old)


class Worker:
    def __init__(self, seed):
        self.rng = random.Random(seed)

    def walk(self, depth):
        """A directory that existed a moment ago."""
        here = "."
        for _ in range(self.rng.randrange(depth + 1)):
            with os.scandir(here) as entries:
                inside = sorted(e.name for e in entries if e.is_dir(follow_symlinks=False))
            if not inside:
                break
            here += "/" + self.rng.choice(inside)
        return here

    def dir(self):
        """An existing directory, or a free name for one."""
        return "%s/d%d" % (self.walk(3), self.rng.randrange(8))

    def place(self):
        """A name that may or may not be taken."""
        names = [*("f%d" % n for n in range(14)), ".wh.f1", ".wh..wh..opq"]
        return self.walk(4) + "/" + self.rng.choice(names)

    def path(self):
        """Mostly a name that existed a moment ago."""
        if self.rng.random() < 0.2:
            return self.place()
        here = self.walk(4)
        inside = sorted(os.listdir(here))
        return here + "/" + self.rng.choice(inside) if inside else self.place()

    def rename(self):
        os.rename(self.path(), self.place())

    def rename_dir(self):
        os.rename(self.dir(), self.dir())

    def exchange(self):
        rename2(self.path(), self.path(), EXCHANGE)

    def noreplace(self):
        rename2(self.path(), self.place(), NOREPLACE)

    def link(self):
        os.link(self.path(), self.place(), follow_symlinks=False)

    def unlink(self):
        os.unlink(self.path())

    def mkdir(self):
        os.mkdir(self.dir(), self.rng.choice([0o755, 0o700, 0o2775]))

    def rmdir(self):
        os.rmdir(self.dir())

    def mknod(self):
        kind, device = self.rng.choice([(stat.S_IFCHR, (0, 0)), (stat.S_IFCHR, (1, 3)),
                                        (stat.S_IFIFO, (0, 0)), (stat.S_IFSOCK, (0, 0)),
                                        (stat.S_IFREG, (0, 0))])
        os.mknod(self.place(), kind | 0o640, os.makedev(*device))

    def symlink(self):
        os.symlink(self.rng.choice(["f1", "f2", "nothing"]), self.place())

    def chmod(self):
        os.chmod(self.path(), self.rng.choice([0o755, 0o600, 0o4711]))

    def chown(self):
        os.chown(self.path(), self.rng.randrange(9), self.rng.randrange(9), follow_symlinks=False)

    def utimes(self):
        when = self.rng.randrange(2 * 10 ** 18)
        os.utime(self.path(), ns=(when, when), follow_symlinks=False)

    def set_xattr(self):
        name = self.rng.choice(["user.a", "user.b", "trusted.c"])
        os.setxattr(self.path(), name, self.rng.randbytes(9), follow_symlinks=False)

    def remove_xattr(self):
        os.removexattr(self.path(), "user.lower", follow_symlinks=False)

    def write(self):
        flags = self.rng.choice([os.O_CREAT, 0, os.O_APPEND, os.O_TRUNC, os.O_CREAT | os.O_EXCL])
        path = self.place() if flags & os.O_CREAT else self.path()
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | flags, 0o644)
        try:
            for _ in range(self.rng.randrange(3)):
                os.write(fd, self.rng.randbytes(self.rng.randrange(9000)))
        finally:
            os.close(fd)

    def truncate(self):
        fd = os.open(self.path(), os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.ftruncate(fd, self.rng.randrange(30000))
        finally:
            os.close(fd)

    def read(self):
        fd = os.open(self.path(), os.O_RDONLY | os.O_NONBLOCK)
        try:
            os.read(fd, 1 << 16)
        finally:
            os.close(fd)

    def list(self):
        os.listdir(self.dir())


def work(root, seed, count):
    os.chdir(root)
    worker = Worker(seed)
    calls = [value for name, value in vars(Worker).items()
             if name not in ("__init__", "walk", "dir", "place", "path", "__module__", "__doc__")
             and callable(value)]
    counts, bad = collections.Counter(), 0
    for number in range(count):
        call = worker.rng.choice(calls)
        try:
            call(worker)
            counts["ok"] += 1
        except OSError as error:
            counts[errno.errorcode[error.errno]] += 1
            if error.errno not in EXPECTED:
                print("call %d, %s: %s" % (number, call.__name__, error), file=sys.stderr)
                bad = 1
    print("seed %d: %s" % (seed, " ".join("%s %d" % item for item in counts.most_common())))
    return bad


if __name__ == "__main__":
    if sys.argv[1] == "lower":
        lower(sys.argv[2])
    else:
        sys.exit(work(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
