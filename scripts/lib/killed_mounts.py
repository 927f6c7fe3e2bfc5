#!/usr/bin/env python3
"""Kills `strata mount --backend kernel` and `strata umount` at each system call.

usage: killed_mounts.py STRATA ARCHIVE [--all]

Works in the current directory, as root. ARCHIVE has one image. Each of five commands (mount with and
without an image of names, unmount, and both with a writable layer) is killed at the first, second,
... of its calls that change what others see (with --all: of all its system calls). After each kill:

* the mount exists and is whole (its image and its upper are in use, a file of it can be read), or
  it does not exist;
* after an unmount and `strata gc` nothing is left of it: no record, no lease, nothing in staging/;
* `strata fsck` finds no problem, and the image can be mounted again.

The last thing is that the image can be removed.
"""
import os
import subprocess
import sys

CALLS = ("openat", "write", "pwrite64", "fsync", "fdatasync", "rename", "renameat2", "unlink",
         "unlinkat", "mkdir", "mkdirat", "flock", "fchown", "ftruncate", "fsopen", "fsconfig", "fsmount",
         "move_mount", "umount2")


class Killed:
    """One store, one image, one mountpoint."""

    def __init__(self, strata, archive, every):
        self.strata, self.every, self.point = strata, every, os.path.abspath("mnt")
        self.environment = dict(os.environ, STRATA_ROOT=os.path.abspath("store"))
        os.mkdir(self.point)
        self.ok("load", "-q", "-i", archive)
        self.image = self.ok("images", "-q", "--no-trunc").split()[0]

    def run(self, *args):
        return subprocess.run([self.strata, *args], env=self.environment, text=True,
                              capture_output=True, check=False)

    def ok(self, *args):
        done = self.run(*args)
        if done.returncode:
            raise SystemExit("strata %s: %s" % (" ".join(args), done.stderr.strip()))
        return done.stdout

    def is_mounted(self):
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
            return any(line.split(" ")[4] == self.point for line in table)

    def calls(self, args, before):
        """The names of the calls to be killed at."""
        if not self.every:
            return CALLS
        if before:
            self.ok(*before)
        said = subprocess.run(["strace", "-f", "-c", "-S", "name", "-o", "calls", self.strata, *args],
                              env=self.environment, capture_output=True, check=True)
        self.check("counting the calls", None)
        with open("calls", encoding="ascii") as table:
            lines = [line.split() for line in table]
        os.unlink("calls")
        # execve is the start of the program, and exit_group its end.
        return [line[-1] for line in lines if said and len(line) > 3 and line[3].isdigit()
                and line[-1] not in ("total", "execve", "exit_group")]

    def killed_at(self, call, number, args):
        """Runs the command and kills it at the nth call of a name; whether it was killed."""
        done = subprocess.run(
            ["strace", "-f", "-o", "/dev/null", "-e", "trace=" + call, "-e",
             "inject=%s:signal=KILL:when=%d" % (call, number), self.strata, *args],
            env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode not in (0, -9, 137):
            raise SystemExit("%s, killed at %d: %d: %s" % (args, number, done.returncode,
                                                           done.stderr.strip()))
        return done.returncode != 0

    def check(self, what, upper):
        """Looks at what a kill left, and takes it away."""
        def expect(good, text):
            if not good:
                raise SystemExit("killed_mounts: %s: %s" % (what, text))
        if self.is_mounted():
            with open(self.point + "/etc/passwd", encoding="utf-8") as file:
                expect(file.read().startswith("root"), "the mount is not whole")
            expect(self.run("rmi", "--force", self.image).returncode, "a mounted image was removed")
            if upper:
                expect(self.run("rm", upper).returncode, "a mounted upper was removed")
            self.ok("umount", self.point)
        self.ok("gc")
        left = sorted(os.listdir("store/mounts"))
        expect(left in ([], [".lock"]), "left in mounts/: %s" % left)
        expect(not os.listdir("store/staging"), "left in staging/")
        self.ok("fsck")

    def every_step(self, name, args, before=None, upper=None, forget=False):
        """Kills the command at its first, second, ... call."""
        kills = 0
        for call in self.calls(args, before):
            number = 0
            killed = True
            # strace counts the calls of each name by themselves.
            while killed:
                number += 1
                if forget:
                    for tree in os.listdir("store/trees"):
                        os.unlink("store/trees/" + tree)
                if before:
                    self.ok(*before)
                killed = self.killed_at(call, number, args)
                self.check("%s, killed at %s %d" % (name, call, number), upper)
                kills += killed
        print("killed_mounts: %-40s %4d kills, nothing left" % (name, kills), flush=True)


def main():
    strata, archive = (os.path.abspath(path) for path in sys.argv[1:3])
    killed = Killed(strata, archive, "--all" in sys.argv[3:])
    mount = ["mount", "--backend", "kernel", killed.image, killed.point]
    kept = mount[:3] + ["--upper", "work"] + mount[3:]
    unmount = ["umount", killed.point]
    killed.every_step("mount, the image of names to be made", mount, forget=True)
    killed.every_step("mount", mount)
    killed.every_step("umount", unmount, before=mount)
    killed.every_step("mount --upper", kept, upper="work")
    killed.every_step("umount of an upper", unmount, before=kept, upper="work")
    killed.ok("rm", "work")
    killed.ok("rmi", killed.image)
    left = os.listdir("store/layers") + os.listdir("store/trees")
    if left:
        raise SystemExit("killed_mounts: left after rmi: %s" % left)


if __name__ == "__main__":
    main()
