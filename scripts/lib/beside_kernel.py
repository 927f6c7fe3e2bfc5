#!/usr/bin/env python3
"""Random sequences of operations on `strata mount --backend kernel --upper`, and on overlayfs over
plain directories, side by side.

usage: beside_kernel.py STRATA PLACE --seed N --count N [--failures N] [--seconds N]
       beside_kernel.py STRATA PLACE --replay FILE

PLACE is a directory of a file system that uppers may be on. The lower of the one side is a
directory, that of the other an image of one layer with the same tree. The operations, and what must
be equal, are those of beside.py; between two mounts nothing is edited. Inode numbers of strata's
mount stay over a remount.
"""
import argparse
import ctypes
import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile

from beside import LIBC, SIDES, Different, Pair, Runner, report, unmount
from beside_apart import make_lower
from beside_ops import Hands

OPTIONS = "redirect_dir=on,metacopy=on,index=off,xino=on"
RELATIME = 1 << 21


class ImageHands(Hands):
    """The side whose lower is an image. Two things that the kernel does not do above EROFS are done
    in another way; docs/SEMANTICS-WRITABLE.md has them."""

    def copied_up(self, change, where):
        """Makes a change of an ACL. EROFS sets none, so overlayfs refuses until a copy-up."""
        try:
            return change()
        except OSError as error:
            if error.errno != errno.ENOTSUP or stat.S_ISLNK(self.kind(where)):
                raise
        who = os.geteuid()
        os.seteuid(0)
        os.chmod(where, stat.S_IMODE(os.stat(where).st_mode))
        os.seteuid(who)
        return change()

    @staticmethod
    def kind(where):
        return (os.fstat if isinstance(where, int) else os.lstat)(where).st_mode

    def op_set_acl(self, path, name, seed):
        self.copied_up(lambda: super(ImageHands, self).op_set_acl(path, name, seed), self.at(path))

    def op_remove_xattr(self, path, name):
        self.copied_up(lambda: super(ImageHands, self).op_remove_xattr(path, name), self.at(path))

    def held_set_acl(self, fd, seed):
        self.copied_up(lambda: super(ImageHands, self).held_set_acl(fd, seed), fd)

    def op_copy_range(self, path, other):
        try:
            return super().op_copy_range(path, other)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        with self.open(path, os.O_RDONLY) as source, self.open(other, os.O_WRONLY) as target:
            return os.write(target, self.read_quietly(source))

    @staticmethod
    def read_quietly(source):
        """Reads without a change of the access time: copy_file_range of overlayfs makes none."""
        who = os.geteuid()
        os.seteuid(0)
        again = os.open("/proc/self/fd/%d" % source, os.O_RDONLY | os.O_NOATIME)
        os.seteuid(who)
        try:
            return os.read(again, 5000)
        finally:
            os.close(again)


class KernelPair(Pair):
    """Both unions. The uppers of the one are plain directories, those of the other in a store."""

    def __init__(self, program, places, points, mode):
        super().__init__(program, places, points, mode)
        self.hands["strata"] = ImageHands(points + "/strata", self.since, True)

    def make(self):
        lower = self.base + "/lower"
        os.mkdir(lower)
        make_lower(lower, self.mode["seed"] + len("lower"), self.mode)
        for name in ("/kernel", "/kernel/upper", "/kernel/work"):
            os.mkdir(self.base + name)
        # As strata does it: the root of an upper hides that of the lower.
        upper = self.base + "/kernel/upper"
        found = os.stat(lower)
        os.chown(upper, found.st_uid, found.st_gid)
        shutil.copystat(lower, upper)
        archive = self.base + "/image.tar"
        subprocess.run(["tar", "-C", lower, "--format=posix", "--xattrs", "--xattrs-include=*",
                        "--acls", "--atime-preserve=system", "--numeric-owner", "-cf", archive, "."],
                       check=True)
        self.reference = self.strata("-q", "import", archive, "lower:1").split()[-1]

    def strata(self, *words):
        """Runs strata on the pair's store. Raises Different with its words if it fails."""
        done = subprocess.run([self.program, "--root", self.base + "/store", *words], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if done.returncode:
            raise Different("strata %s: %s" % (words[0], done.stderr.strip()))
        return done.stdout

    def mount(self):
        self.mounted = True
        base, points = self.base, self.points
        options = "lowerdir=%s/lower,upperdir=%s/kernel/upper,workdir=%s/kernel/work,%s" % (
            base, base, base, OPTIONS)
        if LIBC.mount(b"overlay", (points + "/kernel").encode(), b"overlay",
                      ctypes.c_ulong(RELATIME), options.encode()):
            raise Different("mount of kernel: %d" % ctypes.get_errno())
        self.strata("mount", "--backend", "kernel", "--suid", "--dev", "--upper", "work",
                    self.reference, points + "/strata")

    def umount(self):
        for side in SIDES:
            self.hands[side].let_go()
        unmount(self.points + "/kernel")
        self.strata("umount", self.points + "/strata")
        self.mounted = False
        if self.lowers() != self.lowers_are:
            raise Different("the lower has changed")


class KernelRunner(Runner):
    """Draws and runs sequences on such pairs."""

    pair = KernelPair

    def mode(self, seed, rng):
        return {"seed": seed, "kind": "plain", "lowers": 1, "place": 0, "atimes": False}

    def other_operation(self, mode, rng, maker, first):
        return ["remount", "noatime"] if first or rng.random() < 0.08 else None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("place")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--length", type=int, default=40)
    parser.add_argument("--failures", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--replay")
    args = parser.parse_args()
    place = tempfile.mkdtemp(dir=os.path.realpath(args.place), prefix="beside.")
    os.chmod(place, 0o755)
    points = place + "/points"
    for path in (points, *(points + "/" + side for side in SIDES)):
        os.mkdir(path)
    runner = KernelRunner(args.program, [place], points)
    try:
        if args.replay:
            with open(args.replay) as file:
                mode, *operations = [json.loads(line) for line in file if line.strip()]
            wrong = runner.replay(mode, operations)
            print(wrong or "no difference")
            return 1 if wrong else 0
        return runner.sequences(args)
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
