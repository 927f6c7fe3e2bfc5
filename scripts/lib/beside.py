#!/usr/bin/env python3
"""Random sequences of operations on strata-overlay and on the kernel's overlayfs, side by side.

usage: beside.py STRATA-OVERLAY PLACE OTHER-PLACE --seed N --count N [--failures N] [--seconds N]
       beside.py STRATA-OVERLAY PLACE OTHER-PLACE --replay FILE

The PLACEs are directories of two file systems. Both unions have the same lowers, and each an upper
of its own. The script runs the same operations on both (beside_ops.py); the results, and then the
trees, must be the same. In between it unmounts both, edits them (beside_apart.py), and mounts them
again at once.

Invariants, beside the equal trees: the lowers do not change, and strata's inode numbers stay over
a remount, but for nodes that can have no mark. A sequence that fails is made as short as possible and printed as lines of JSON, which
--replay reads.
"""
import argparse
import ctypes
import errno
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import time

from beside_apart import Apart, cover, draw, make_lower
from beside_ops import DEFAULT, LIBC, Hands, Maker, acl, listing, shown

SIDES = ("kernel", "strata")
ATIMES = {"noatime": 1 << 10, "relatime": 1 << 21, "strictatime": 1 << 24}
BOTH = {
    "plain": "redirect_dir=on,metacopy=on,index=off",
    "volatile": "redirect_dir=on,metacopy=on,index=off",
    "nometacopy": "redirect_dir=on,metacopy=off,index=off",
    "noredirect": "redirect_dir=off,metacopy=off,index=off",
    "userxattr": "userxattr,index=off",
    "apart": "redirect_dir=on,metacopy=on,index=off",
    "indexed": "redirect_dir=on,metacopy=on,index=on",
}
STRATA = {"volatile": ",volatile", "userxattr": ",redirect_dir=off,metacopy=off", "apart": ",xattr_permissions=2"}
# Directories that are inside one another, or given twice.
TWICE = {
    "lower twice": "lowerdir={b}/lower:{b}/lower,upperdir={s}/upper,workdir={s}/work",
    "lower in a lower": "lowerdir={b}/lower:{b},upperdir={s}/upper,workdir={s}/work",
    "upper is lower": "lowerdir={b}/lower,upperdir={b}/lower,workdir={s}/work",
    "upper in a lower": "lowerdir={b},upperdir={s}/upper,workdir={s}/work",
    "work is upper": "lowerdir={b}/lower,upperdir={s}/upper,workdir={s}/upper",
    "work in the upper": "lowerdir={b}/lower,upperdir={s},workdir={s}/work",
    "work in the lower": "lowerdir={s}/work,upperdir={s}/upper,workdir={s}/work",
}


class Different(Exception):
    """The two sides have different results."""


class Pair:
    """Both unions over their directories, mounted or not."""

    def __init__(self, program, places, points, mode):
        self.program = program
        self.places = places
        self.points = points
        self.mode = mode
        self.sides = SIDES
        self.place = mode["place"]
        # File systems take times from a clock that is some milliseconds late.
        self.since = time.time_ns() - 10 ** 9
        self.base = places[self.place] + "/" + "pair"
        self.made = 0
        self.atime = "noatime"
        self.hands = {side: Hands(points + "/" + side, self.since, "metacopy=on" in BOTH[mode["kind"]])
                      for side in SIDES}
        self.mounted = self.edited = False
        os.mkdir(self.base)
        self.make()
        self.lowers_are = self.lowers()

    def make(self):
        # All nodes below inherit an ACL that gives other users access.
        for name in ["lower"] + ["lower2"] * (self.mode["lowers"] - 1):
            os.mkdir(self.base + "/" + name)
            make_lower(self.base + "/" + name, self.mode["seed"] + len(name), self.mode)
        if self.mode["lowers"] == 2:
            cover(self.base + "/lower", self.base + "/lower2", self.mode["seed"])
        for side in SIDES:
            for name in ("", "/upper", "/work"):
                path = self.base + "/" + side + name
                os.mkdir(path)
            os.setxattr(path, DEFAULT, acl(0o77777))

    def elsewhere(self):
        """A new directory on the other file system."""
        self.place = 1 - self.place
        self.made += 1
        path = "%s/pair%d" % (self.places[self.place], self.made)
        os.mkdir(path)
        return path

    def lowers(self):
        lines = []
        for name in sorted(os.listdir(self.base)):
            if name.startswith("lower"):
                root = "%s/%s" % (self.base, name)
                lines += [(name, path, line.replace("atime=", ""))
                          for path, line in sorted(shown(Hands(root, self.since))[0].items())]
        return [(name, path, [word for word in line.split() if not word.startswith("atime")])
                for name, path, line in lines]

    def options(self, side, names):
        return names.format(b=self.base, s=self.base + "/" + side)

    def attempt(self, side, names, atime="noatime", index="index=on"):
        """Mounts one side; gives the error, if it is refused."""
        kind, point = self.mode["kind"], self.points + "/" + side
        options = self.options(side, names) + "," + BOTH[kind]
        if side == "strata":
            options += STRATA.get(kind, "") + "," + atime + "," + index
            done = subprocess.run([self.program, "-o", options, point], text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            return done.stdout.strip() or "refused" if done.returncode else None
        if LIBC.mount(b"overlay", point.encode(), b"overlay", ctypes.c_ulong(ATIMES[atime]),
                      options.encode()):
            return errno.errorcode[ctypes.get_errno()]
        return None

    def mount(self):
        lowers = ":".join("{b}/" + n for n in sorted(os.listdir(self.base)) if n[:5] == "lower")
        names = "lowerdir=" + lowers + ",upperdir={s}/upper,workdir={s}/work"
        self.mounted = True
        for side in SIDES:
            wrong = self.attempt(side, names, self.atime, self.mode["index"])
            for _ in range(100):
                # Sometimes the kernel still holds the upper of its last mount.
                if (side, wrong) != ("kernel", "EBUSY"):
                    break
                time.sleep(0.02)
                wrong = self.attempt(side, names, self.atime)
            if wrong:
                raise Different("mount of %s: %s" % (side, wrong))

    def umount(self):
        for side in SIDES:
            self.hands[side].let_go()
            unmount(self.points + "/" + side)
        self.mounted = False
        if self.lowers() != self.lowers_are:
            raise Different("the lower has changed")

    def check(self):
        """Both trees are the same; strata's numbers."""
        # With userxattr overlayfs has no mark for the origin of a symlink, and another number;
        # the same goes for a metacopy without a mark.
        links = self.mode["kind"] != "userxattr" and not self.edited
        trees = [shown(self.hands[side], links) for side in SIDES]
        kernel, strata = [lines for lines, _ in trees]
        for path in sorted({*kernel, *strata}):
            if kernel.get(path) != strata.get(path):
                raise Different("/%s\nkernel: %s\nstrata: %s"
                                % (path, kernel.get(path), strata.get(path)))
        return trees[1][1]

    def step(self, operation):
        name, *arguments = operation
        if name == "twice":
            self.twice(*arguments)
        elif name in ("remount", "unmounted"):
            before = self.check()
            self.umount()
            if name == "unmounted":
                Apart(self).run(arguments[0])
                self.edited = True
                self.forget_origins()
                self.lowers_are = self.lowers()
            else:
                self.atime = arguments[0]
            self.mount()
            after = self.check()
            # Of two nodes with one origin the one that is found first has its number.
            changed = [] if self.edited else [
                path for path in sorted({*before, *after})
                if before.get(path) != after.get(path) and self.is_numbered(path)]
            if changed:
                raise Different("another number after a remount: %s" % changed)
        else:
            said = [self.hands[side].run(operation) for side in SIDES]
            if said[0] != said[1]:
                raise Different("%s\nkernel: %s\nstrata: %s" % (json.dumps(operation), *said))

    def is_numbered(self, path):
        """Whether the node can have a mark that its number stays by: with userxattr, none but a
        file and a directory can."""
        mode = os.lstat("%s/strata/%s" % (self.points, path)).st_mode
        return self.mode["kind"] != "userxattr" or stat.S_ISREG(mode) or stat.S_ISDIR(mode)

    def forget_origins(self):
        """overlayfs says ESTALE for one of two files with one origin, where strata shows both."""
        if self.mode["kind"] == "indexed":
            return
        upper = self.base + "/kernel/upper"
        for path, is_dir, _ in listing(upper):
            for name in os.listxattr(upper + "/" + path, follow_symlinks=False):
                if name.endswith(".overlay.origin") and not is_dir:
                    os.removexattr(upper + "/" + path, name, follow_symlinks=False)

    def twice(self, what):
        if what == "mounted":
            # The kernel refuses it only with index=on.
            options = "lowerdir={b}/lower,upperdir={s}/upper,workdir={s}/work"
            wrong = self.attempt("strata", options)
            if wrong is None or "in use" not in wrong:
                raise Different("mounted twice: %s" % wrong)
            return
        self.umount()
        said = [self.attempt(side, TWICE[what]) for side in SIDES]
        for side, wrong in zip(SIDES, said):
            if wrong is None:
                unmount(self.points + "/" + side)
        if (said[0] is None) != (said[1] is None):
            raise Different("%s\nkernel: %s\nstrata: %s" % (what, *said))
        self.mount()

    def end(self):
        for side in SIDES:
            self.hands[side].let_go()
            while LIBC.umount2((self.points + "/" + side).encode(), 2) == 0:
                pass
        shutil.rmtree(self.base, ignore_errors=True)


def unmount(point):
    if LIBC.umount2(point.encode(), 0):
        raise Different("umount %s: %s" % (point, errno.errorcode[ctypes.get_errno()]))


class Runner:
    """Draws sequences and runs them on pairs of the class `pair`."""

    pair = Pair

    def __init__(self, program, places, points):
        self.program, self.places, self.points = program, places, points

    def random(self, seed, length):
        """A sequence that is drawn while it runs: its mode, its operations, what went wrong."""
        rng = random.Random(seed)
        mode = self.mode(seed, rng)
        maker = Maker(rng, 0o1777 if mode["atimes"] else 0o7777)
        done = []

        def next_operation(pair):
            if len(done) == length:
                return None
            maker.look(self.points + "/kernel")
            return self.other_operation(mode, rng, maker, not done) or maker.operation()

        def recorded(pair):
            operation = next_operation(pair)
            if operation is not None:
                done.append(operation)
            return operation

        return mode, done, self.run(mode, recorded)

    def mode(self, seed, rng):
        """What the two unions are made of, and how they are mounted."""
        kinds = ["plain"] * 3 + ["volatile", "nometacopy", "nometacopy", "noredirect", "userxattr",
                 "apart", "indexed"]
        mode = {"seed": seed, "kind": rng.choice(kinds), "lowers": rng.choice([1, 1, 2]),
                "place": rng.choice([0, 0, 0, 1]), "atimes": rng.random() < 0.4,
                "index": rng.choice(["index=on", "index=on", "index=off"])}
        if mode["kind"] in ("userxattr", "indexed"):
            mode["lowers"] = 1
        # Without passthrough, reads come from the page cache, and strata sees only the first.
        mode["atimes"] = mode["atimes"] and mode["kind"] != "apart"
        return mode

    def other_operation(self, mode, rng, maker, first):
        """Something that happens to the mounts themselves, now and then."""
        chance = rng.random()
        if first or chance < 0.05:
            return ["remount", rng.choice(list(ATIMES) if mode["atimes"] else ["noatime"])]
        if chance < 0.12:
            return ["unmounted", draw(rng, maker)]
        if chance < 0.125:
            # With index=on the kernel then misses the lower that the upper belongs to.
            free = TWICE if mode["kind"] != "indexed" else {}
            return ["twice", rng.choice(["mounted", *free])]
        return None

    def replay(self, mode, operations):
        rest = iter(operations)
        return self.run(mode, lambda pair: next(rest, None))

    def run(self, mode, next_operation):
        """What went wrong, if anything did."""
        pair = self.pair(self.program, self.places, self.points, mode)
        try:
            pair.mount()
            while (operation := next_operation(pair)) is not None:
                pair.step(operation)
            pair.check()
            pair.umount()
        except (Different, OSError) as error:
            return "%s: %s" % (type(error).__name__, error)
        finally:
            pair.end()
        return None

    def shorter(self, mode, operations, replays=400):
        """The same failure, or another, with as few operations as can be found."""
        size = max(1, len(operations) // 2)
        while replays > 0:
            at, cut = 0, False
            while at < len(operations) and replays > 0:
                fewer = operations[:at] + operations[at + size:]
                replays -= 1
                if self.replay(mode, fewer):
                    operations, cut = fewer, True
                else:
                    at += size
            if size == 1 and not cut:
                break
            size = max(1, size // 2)
        return operations

    def sequences(self, args):
        """As many as are wanted; the exit status."""
        failures = clean = 0
        start = time.monotonic()
        for seed in range(args.seed, args.seed + args.count):
            mode, operations, wrong = self.random(seed, args.length)
            if wrong:
                failures += 1
                report(self, mode, operations, wrong)
            else:
                clean += 1
                if clean % 500 == 0:
                    print("%d clean" % clean, flush=True)
            if failures >= args.failures or time.monotonic() - start > args.seconds:
                break
        print("%d sequences clean, from seed %d on; %d failed" % (clean, args.seed, failures))
        return 1 if failures else 0


def report(runner, mode, operations, wrong):
    print("seed %d: %s" % (mode["seed"], wrong))
    again = runner.replay(mode, operations)
    if again is None:
        print("(it does not fail again; these are all operations)")
    else:
        operations = runner.shorter(mode, operations)
        print("in short: %s" % runner.replay(mode, operations))
    for line in [mode, *operations]:
        print("  " + json.dumps(line))
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("places", nargs=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--length", type=int, default=40)
    parser.add_argument("--failures", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--replay")
    args = parser.parse_args()
    places = []
    for place in args.places:
        places.append(tempfile.mkdtemp(dir=os.path.realpath(place), prefix="beside."))
        os.chmod(places[-1], 0o755)
    points = places[1] + "/points"
    os.mkdir(points)
    for side in SIDES:
        os.mkdir(points + "/" + side)
    runner = Runner(args.program, places, points)
    try:
        if args.replay:
            with open(args.replay) as file:
                mode, *operations = [json.loads(line) for line in file if line.strip()]
            wrong = runner.replay(mode, operations)
            print(wrong or "no difference")
            return 1 if wrong else 0
        return runner.sequences(args)
    finally:
        for place in places:
            shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
