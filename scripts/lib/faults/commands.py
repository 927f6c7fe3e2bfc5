"""The commands of `scripts/faults`, each with what it begins from and what it leaves.

The model: a *place* is a directory with a store `store`, a directory `out` for what a command writes
and `mnt` for mounts; `base` is such a place with two images, one of them with a further name, and
a writable layer on the other. A command runs in a copy of it. What it leaves is told by `state`: the
images, layers and writable layers of the store, and the digest of everything in `out`.
"""
import hashlib
import json
import os
import re
import subprocess

FIXTURES = os.path.realpath(os.path.join(os.path.dirname(__file__), "../../../tests/fixtures"))
IMAGE, OTHER = "stratafs.test/busybox:1", "stratafs.test/cases:2"


def fixture(name):
    return os.path.join(FIXTURES, name)


class Command:
    """One command line of strata, or of sh with "$@" for strata. What a `durable` one has done outlasts
    a power failure: it changes the store, and makes nothing beside it. One that `mends` begins with a
    store that is damaged; until it succeeds, so is the store. The system calls `spared` never fail."""

    def __init__(self, name, *args, shell=None, durable=False, mends=False, spared=()):
        self.name, self.args, self.shell = name, args, shell
        self.durable, self.mends, self.spared = durable, mends, spared

    def line(self, strata, place):
        program = [strata, "--root", place + "/store"]
        if self.shell:
            return ["sh", "-c", self.shell, "sh", *program]
        return [*program, *(arg.replace("@", place) for arg in self.args)]


# A mount and its end, as one command. What was mounted is always unmounted, for its daemon is traced
# too, and ends only then.
MOUNTED = ('"$@" -q mount {} ' + IMAGE + ' mnt || exit; {}; s=$?; "$@" -q umount mnt && exit $s; '
           'umount -l mnt || umount -l mnt; exit 1')
# The daemon's replies. The kernel ends a request by itself whose reply it cannot take in; a call that
# strace lets fail does not come to the kernel, so its caller would wait for ever.
REPLIES = ("writev",)
LOOK = "ls mnt/bin > /dev/null && cat mnt/etc/passwd > /dev/null"

COMMANDS = [
    Command("load", "-q", "load", "-i", fixture("sparse.oci.tar"), durable=True),
    Command("load docker", "-q", "load", "-i", fixture("cases-podman.docker.tar"), durable=True),
    Command("load zstd", "-q", "load", "-i", fixture("cases-zstd.oci.tar"), durable=True),
    Command("import", "-q", "import", fixture("rootfs.tar.gz"), "stratafs.test/root:1", durable=True),
    Command("pull", "-q", "pull", "{registry}/stratafs.test/cases:2", durable=True),
    Command("commit", "-q", "commit", "work", "stratafs.test/made:1", durable=True),
    Command("tag", "-q", "tag", IMAGE, "stratafs.test/tagged:1", durable=True),
    Command("rmi", "-q", "rmi", "--force", OTHER, durable=True),
    Command("gc", "-q", "gc", durable=True),
    Command("fsck", "-q", "fsck", "--repair", durable=True),
    Command("rebuild", shell=': > store/index.db && "$@" -q fsck --repair', durable=True, mends=True),
    Command("rm", "-q", "rm", "work", durable=True),
    Command("save", "-q", "save", "-o", "@/out/saved.tar", IMAGE),
    Command("export", "-q", "export", "-o", "@/out/tree.tar", IMAGE),
    Command("export erofs", "-q", "export", "--type", "erofs", "-o", "@/out/tree.erofs", IMAGE),
    Command("unpack", "-q", "unpack", IMAGE, "@/out/tree"),
    Command("cp", "-q", "cp", IMAGE + ":/etc", "@/out/etc"),
    Command("copy", "-q", "copy", IMAGE, "oci:@/out/layout:1"),
    Command("facts", "-q", "facts", "-o", "@/out/facts"),
    Command("report", "-q", "report", "-o", "@/out/report.html"),
    Command("mount kernel", shell=MOUNTED.format("--backend kernel", LOOK)),
    Command("mount fuse", shell=MOUNTED.format("--backend fuse", LOOK),
            spared=REPLIES),
    Command("mount upper", shell=MOUNTED.format("--upper work", "echo more > mnt/etc/more"),
            spared=REPLIES),
    Command("df", "-q", "df", "--format", "json"),
    Command("images", "-q", "images", "--format", "json"),
    Command("diff", "-q", "diff", "work", "--format", "json"),
]


# When a page was made, and what the index takes: its log is there or not.
MADE = re.compile(rb'"created":"[^"]*"|\["index.db",[0-9]+,[0-9]+\]')


def strata(program, place, *args):
    """The output of a command that nothing disturbs."""
    done = subprocess.run([program, "--root", place + "/store", *args], cwd=place,
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError("strata %s: %s" % (" ".join(args), done.stderr.strip()))
    return done.stdout


def make_base(program, place):
    os.makedirs(place + "/out")
    os.makedirs(place + "/mnt")
    strata(program, place, "-q", "load", "-i", fixture("busybox-gzip.oci.tar"))
    strata(program, place, "-q", "load", "-i", fixture("cases-gzip.oci.tar"))
    strata(program, place, "-q", "tag", OTHER, "stratafs.test/second:1")
    strata(program, place, "-q", "mount", "--backend", "fuse", "--upper", "work", IMAGE, "mnt")
    with open(place + "/mnt/etc/new", "w", encoding="ascii") as file:
        file.write("new\n" * 1000)
    os.unlink(place + "/mnt/etc/passwd")
    strata(program, place, "-q", "umount", "mnt")


def state(program, place):
    """What the store and `out` hold, without what depends on the time."""
    found = {}
    images = map(json.loads, strata(program, place, "images", "--format", "json").splitlines())
    found["images"] = sorted("%(Repository)s:%(Tag)s %(Size)s" % image for image in images)
    uppers = json.loads(strata(program, place, "uppers", "--format", "json"))
    found["uppers"] = sorted("%(name)s %(bytes)d on %(reference)s" % upper for upper in uppers)
    found["out"] = {os.path.relpath(path, place): digest
                    for path, digest in digests(place + "/out")}
    return found


def digests(top):
    """The digest of each file and link below a directory; times of making are not looked at."""
    read = {}  # by inode: an image has hundreds of names of one program
    for where, dirs, names in os.walk(top):
        for name in sorted(dirs + names):
            path = os.path.join(where, name)
            if os.path.islink(path):
                yield path, "-> " + os.readlink(path)
            elif os.path.isfile(path):
                inode = os.stat(path).st_ino
                if inode not in read:
                    with open(path, "rb") as file:
                        data = file.read()
                    data = re.sub(MADE, b"", data) if name.endswith(".html") else data
                    read[inode] = hashlib.sha256(data).hexdigest()
                yield path, read[inode]
            else:
                yield path, "directory" if os.path.isdir(path) else "special"
