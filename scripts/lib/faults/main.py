"""Runs the commands with one system call of each run failing: what `scripts/faults` calls.

The model: a run without a fault counts the calls of a kind and gives the state that the command
leaves. Then for each chosen point a copy of the base runs with that call failing. The verdict:

  done    it said that it succeeded, and left what it leaves without a fault
  told    it failed, said why, and after that the same command succeeds
  WRONG   anything else; the reason is printed at once, with the command line that shows it

For a command that changes the store there are also cuts: the place is on a disk of its own, whose power
fails once the program was killed in its nth call (see cutdisk.py). What was there before is
there and whole, and what the command said is done is there too: the last point is the cut after its
end.

A point is the name of a system call and a number: the nth call of that name of each thread fails.
A run that makes fewer of them, for threads take their work in another order, has missed its point,
which is counted. A fault in the dynamic linker, before the program runs, has the linker's message, or
its crash: without memory for the first thread's own data it writes to address 0.
"""
import argparse
import os
import re
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))
from commands import COMMANDS, make_base, state, strata
from cutdisk import LOG_FLUSH, NAMES as DISKS, NO_LOG_FLUSH, CutDisk, makers

WRITES = ("write,pwrite64,writev,pwritev,openat,mkdirat,mkdir,linkat,link,symlinkat,symlink,rename,"
          "renameat,renameat2,fallocate,ftruncate,fsync,fdatasync,syncfs,copy_file_range,fsetxattr,"
          "setxattr,lsetxattr,sendfile,mknodat,msync")
READS = "read,pread64,readv,openat,openat2,newfstatat,statx,fstat,getdents64,readlinkat,lseek"
KINDS = {
    "ENOSPC": ("error=ENOSPC", WRITES),
    "EIO": ("error=EIO", WRITES + "," + READS + ",unlinkat,unlink,rmdir,flock"),
    "EMFILE": ("error=EMFILE", "openat,openat2,socket,pipe2,dup,dup3,epoll_create1,eventfd2,open,"
                               "fsopen,fsmount,open_tree,memfd_create,signalfd4,timerfd_create"),
    # Not fcntl: the locks of SQLite do not wait, and the kernel interrupts none that does not wait.
    "EINTR": ("error=EINTR", "read,write,pread64,pwrite64,openat,flock,connect,accept4,recvfrom,"
                             "sendto,wait4,waitid,poll,ppoll,epoll_wait,fallocate,fsync"),
    "ENOMEM": ("error=ENOMEM", "mmap,mremap,openat,clone,clone3,mkdirat,linkat,newfstatat,"
                               "getdents64,fsopen,fsmount,mprotect"),
    "KILL": ("signal=KILL", WRITES + ",unlinkat,unlink,rmdir,mount,move_mount,fsmount"),
    "SHORT": None,
}
# The calls after which a disk may hold something else, or has to; the names of files and the flushes.
CUT = ("signal=KILL", WRITES + ",unlinkat,unlink,rmdir")
# What is lost of a disk, and which it is. btrfs has no journal that could be written first.
CUTS = {"CUT-" + name: (name, NO_LOG_FLUSH) for name in DISKS}
CUTS.update({"CUT-LOG-" + name: (name, LOG_FLUSH) for name in ("ext4", "xfs")})
KINDS.update(dict.fromkeys(CUTS, CUT))
DISK_SIZE = 320 << 20
END = ("end", 1)
PATIENCE = 60
# What names a thing: a path, a reference, a digest, a device; or which program of a shell failed.
NAMES = re.compile(r"/|(ls|cat|sh): |stratafs\.test|sha256:|thread|memory|standard (in|out)put|standard error|work\b|mnt\b|the store|daemon|descriptors|pipe|index\.db")


class Runs:
    """All runs of one invocation."""

    def __init__(self, args):
        self.strata, self.work, self.points = args.strata, args.work, args.points
        self.base = args.work + "/base"
        self.place = args.work + "/place"
        self.registry = None
        # Whether a place is on a disk, and the file with the base on such a disk.
        self.disk, self.kept = None, None
        make_base(self.strata, self.base)
        self.linking = self.maps_of_linker()

    def maps_of_linker(self):
        """How many of the first mmap calls are those of the dynamic linker."""
        log = self.work + "/log"
        subprocess.run(["strace", "-qqq", "-o", log, "-e", "trace=mmap,set_tid_address", self.strata,
                        "--version"], check=True, stdout=subprocess.DEVNULL)
        with open(log, encoding="utf-8") as file:
            return file.read().split("set_tid_address(")[0].count("mmap(")

    def on_disk(self, cut):
        """From now on each place is on a disk of that kind of cut; with None on none."""
        self.clean()
        if self.disk:
            self.disk.detach()
        self.place = self.work + "/place"
        self.disk = self.kept = None
        if cut:
            # Short, for sockets are below it.
            disk = CutDisk(self.work + "/cut", makers()[CUTS[cut][0]], DISK_SIZE)
            disk.make()
            self.place = disk.at("disk/place")
            # Not a copy, whose directories may take other blocks than the index knows.
            make_base(self.strata, self.place)
            disk.detach(everything=False)
            disk.copy_to(self.work + "/kept.img")
            disk.attach()
            self.disk, self.kept = disk, self.work + "/kept.img"

    def fresh(self):
        """A new copy of the base, with nothing of the last run in its way."""
        self.clean()
        if self.disk:
            self.disk.detach(everything=False)
            self.disk.copy_from(self.kept)
            return
        # Hard links of the store stay links.
        subprocess.run(["cp", "-a", self.base, self.place], check=True)

    def clean(self):
        with open("/proc/self/mounts", encoding="utf-8") as file:
            mounted = [line.split()[1] for line in file]
        for target in reversed(mounted):
            if target.startswith(self.place + "/"):
                subprocess.run(["umount", "-l", target], check=False)
        if not self.disk:
            shutil.rmtree(self.place, ignore_errors=True)

    def run(self, command, *before, **environment):
        """Runs a command in the place; (status, what it said), a hang as status None."""
        line = [word.replace("{registry}", self.registry or "")
                for word in command.line(self.strata, self.place)]
        with subprocess.Popen([*before, *line], cwd=self.place, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                              errors="replace", start_new_session=True,
                              env=dict(os.environ, RUST_BACKTRACE="0", **environment)) as child:
            try:
                said = child.communicate(timeout=PATIENCE)[1]
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                self.abort_fuse()
                child.communicate()
                return None, "hangs for %d s" % PATIENCE
        return child.returncode, said

    def abort_fuse(self):
        """Ends the FUSE mounts of the place: what waits for their daemons cannot be killed."""
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            for fields in map(str.split, file):
                if fields[4].startswith(self.place + "/mnt") and " - fuse" in " ".join(fields):
                    minor = fields[2].split(":")[1]
                    try:
                        with open("/sys/fs/fuse/connections/%s/abort" % minor, "w") as abort:
                            abort.write("1")
                    except FileNotFoundError:
                        pass  # Its daemon has ended already.

    def without_faults(self, command):
        """The states before a command and after it."""
        self.fresh()
        before = state(self.strata, self.place)
        status, said = self.run(command)
        if status:
            raise SystemExit("faults: %s: %s" % (command.name, said))
        return before, state(self.strata, self.place)

    def points_of(self, command, kind):
        """Every point of a run without a fault: the name of a call, and the how manieth it is for
        the thread that makes most of them, in the order of their first appearance."""
        self.fresh()
        log = self.work + "/log"
        if os.path.exists(log):
            os.unlink(log)
        seen = {}
        if kind == "SHORT":
            status, said = self.run(command, LD_PRELOAD=self.work + "/short.so",
                                    STRATA_SHORT_LOG=log)
            with open(log, encoding="ascii") as file:
                seen["transfer"] = max(map(int, file))
        else:
            status, said = self.run(command, "strace", "-f", "-qqq", "--seccomp-bpf", "-o", log,
                                    "-e", "trace=" + KINDS[kind][1])
            threads = {}
            with open(log, encoding="utf-8", errors="replace") as file:
                for line in file:
                    found = re.match(r"(\d+) +(\w+)\(", line)
                    if found:
                        threads[found.groups()] = threads.get(found.groups(), 0) + 1
            for (_, name), count in threads.items():
                seen[name] = max(count, seen.get(name, 0))
        if status:
            raise SystemExit("faults: %s without a fault: %s" % (command.name, said))
        points = [(name, n) for name, count in seen.items() if name not in command.spared
                  for n in range(1, count + 1)]
        return points + [END] if self.disk else points

    def faulty(self, command, kind, point):
        """The run with one call failing: (status, said, whether it came to that call)."""
        call, n = point
        if point == END:
            return *self.run(command), True
        if kind == "SHORT":
            return *self.run(command, LD_PRELOAD=self.work + "/short.so", STRATA_SHORT=str(n)), True
        log = self.work + "/log"
        # strace 6.1 sends no signal where the kernel filters the calls for it.
        filtered = [] if kind == "KILL" or self.disk else ["--seccomp-bpf"]
        # With -q it tells who was killed.
        status, said = self.run(command, "strace", "-f", "-q", *filtered, "-o", log,
                                "-e", "trace=" + call,
                                "-e", "inject=%s:%s:when=%d" % (call, KINDS[kind][0], n))
        with open(log, encoding="utf-8", errors="replace") as file:
            text = file.read()
        if re.search(r" write\(2, .*\(INJECTED\)", text):
            said += " (standard error: the same call of another thread failed before)"
        # strace ends as its child did, and may not get to write the last line.
        killed = "killed by SIGKILL" in text or status in (-9, 137)
        return status, said, "(INJECTED)" in text or killed

    def verdict(self, command, kind, point, wanted, before):
        """What a point shows: "done", "told", "missed", or what is wrong."""
        self.fresh()
        status, said, reached = self.faulty(command, kind, point)
        if not reached and status is not None:
            return "missed"
        if self.disk:
            self.disk.shut_down(CUTS[kind][1])
            self.disk.boot()
        # Without memory for a thread's own stack, std ends the program by itself.
        if "panicked at" in said and "/std/src/sys/" not in said:
            return "panics: " + said.strip()[-300:]
        if status is None:
            return said
        if status in (-signal.SIGSEGV, 128 + signal.SIGSEGV) or "Segmentation fault" in said:
            if point[0] != "mmap" or point[1] > self.linking:
                return "crashes: " + said.strip()[-300:]
            said += " (loading shared libraries)"
        left = self.mounts()
        if left and status == 0:
            return "says that it succeeded, and left mounts: %s" % left
        if left:
            subprocess.run(["umount", "-l", *left], check=False)
        killed = kind == "KILL" or self.disk or status < 0 or status in (137, 134)
        if status and not killed and not (NAMES.search(said) or "loading shared" in said):
            return "its message names nothing: %r" % said.strip()[-300:]
        if status and command.mends:
            return self.again(command, wanted, said)
        try:
            strata(self.strata, self.place, "-q", "fsck")
        except RuntimeError as error:
            return "fsck after it: %s (it said: %s)" % (error, said.strip()[-200:])
        now = state(self.strata, self.place)
        if status == 0:
            return "done" if now == wanted else "says that it succeeded: %s" % differs(wanted, now)
        for name, item in (("images", now["images"]), ("uppers", now["uppers"])):
            if not killed and item not in (before[name], wanted[name]):
                return "left neither the old nor the new %s: %s" % (name, differs(wanted, now))
        if not killed:
            for path, digest in now["out"].items():
                if wanted["out"].get(path) != digest and digest != "directory":
                    return "left a half file under its name: %s (%s)" % (path, said.strip()[-200:])
        # Done, and then something failed: its output, or what it leaves to the next command.
        return "told" if now == wanted else self.again(command, wanted, said)

    def again(self, command, wanted, said):
        """Whether the same command without a fault does all of it."""
        for name in os.listdir(self.place + "/out"):
            # What was made before the fault is whole, or of a killed run; it is taken away before
            # a second try.
            subprocess.run(["rm", "-rf", self.place + "/out/" + name], check=True)
        status, again = self.run(command)
        if status:
            return "the same command again: %s (first: %s)" % (again.strip()[-300:],
                                                               said.strip()[-200:])
        now = state(self.strata, self.place)
        if now != wanted:
            return "the same command again leaves: %s" % differs(wanted, now)
        try:
            strata(self.strata, self.place, "-q", "fsck")
        except RuntimeError as error:
            return "fsck after the same command again: %s" % error
        return "told"

    def mounts(self):
        with open("/proc/self/mounts", encoding="utf-8") as file:
            return [line.split()[1] for line in file
                    if line.split()[1].startswith(self.place + "/mnt")]


def differs(wanted, now):
    """The first things in which two states differ."""
    said = []
    for what in wanted:
        if wanted[what] == now[what]:
            continue
        if isinstance(wanted[what], dict):
            said += ["%s: %s, not %s" % (key, now[what].get(key), wanted[what].get(key))
                     for key in {**wanted[what], **now[what]}
                     if wanted[what].get(key) != now[what].get(key)][:3]
        else:
            said += ["+ " + item for item in now[what] if item not in wanted[what]][:3]
            said += ["- " + item for item in wanted[what] if item not in now[what]][:3]
    return "; ".join(said)[:600]


def chosen(total, points):
    """Which points are tried: all of them, or some, evenly, the first and the last among them."""
    if points == 0 or total <= points:
        return range(total)
    return sorted({(total - 1) * n // (points - 1) for n in range(points)})


def main():
    parser = argparse.ArgumentParser(prog="scripts/faults")
    parser.add_argument("--strata", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--command", action="append")
    parser.add_argument("--fault", action="append", choices=list(KINDS))
    args = parser.parse_args()
    kinds = args.fault or [kind for kind in KINDS
                           if kind not in CUTS or CUTS[kind][0] in makers()]
    runs, wrong, tried = Runs(args), 0, 0
    serve = subprocess.Popen([args.strata, "--root", runs.base + "/store", "-q", "serve", "--listen",
                              "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
    runs.registry = re.search(r"http://([0-9.:]+)/", serve.stdout.readline()).group(1)
    try:
        for command in COMMANDS:
            if args.command and command.name not in args.command:
                continue
            runs.on_disk(None)
            before, wanted = runs.without_faults(command)
            for kind in kinds:
                if kind in CUTS and not command.durable:
                    continue
                if kind in CUTS:
                    runs.on_disk(kind)
                    before, wanted = runs.without_faults(command)
                every = runs.points_of(command, kind)
                seen = {"done": 0, "told": 0, "missed": 0}
                points = [every[n] for n in chosen(len(every), args.points)]
                for point in points:
                    verdict = runs.verdict(command, kind, point, wanted, before)
                    if verdict in seen:
                        seen[verdict] += 1
                    else:
                        wrong += 1
                        print("WRONG    %s, %s in %s %d: %s" % (command.name, kind, *point, verdict),
                              flush=True)
                if points and seen["missed"] == len(points):
                    raise SystemExit("faults: %s, %s: no point was reached" % (command.name, kind))
                bad = len(points) - sum(seen.values())
                tried += len(points) - seen["missed"]
                print("%-8s %s, %s: %d of %d points, %d done, %d told, %d missed%s" % (
                    "FAILED" if bad else "ok", command.name, kind, len(points), len(every),
                    seen["done"], seen["told"], seen["missed"], ", %d WRONG" % bad if bad else ""),
                    flush=True)
    finally:
        serve.terminate()
        runs.on_disk(None)
    print("%d points tried, %d of them wrong" % (tried, wrong))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
