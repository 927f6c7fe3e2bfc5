"""The peers that mount, and how each does it.

The model: a peer is a function from a mountpoint to a command that returns when the tree can be
used there; daemons go to the background by themselves. All peers mount the same layers: the
kernel's overlayfs and both fuse-overlayfs take the layers unpacked by GNU tar with whiteouts in
overlayfs' own form, strata takes its store, squashfuse and erofsfuse an image of the merged tree.
`Mount` holds one mount: it knows the daemon's process, its memory, CPU time and requests.
"""
import contextlib
import os
import shutil
import time

from importing import cpu_of
from measure import Failed, run, sample

# Who mounts without leaving a process.
WITHOUT_DAEMON = ("overlayfs", "strata kernel")
EROFS_ABSENT = "Debian 12 has no erofsfuse (erofs-utils is there, its FUSE program is not)"


def unpack_layer(blob, target):
    """Unpacks a layer into an overlay directory: whiteouts as devices 0:0, opaque as attribute."""
    os.makedirs(target)
    run("tar", "-xf", blob, "-C", target)
    for folder, _, names in os.walk(target):
        for name in names:
            path = os.path.join(folder, name)
            if name == ".wh..wh..opq":
                os.unlink(path)
                os.setxattr(folder, "trusted.overlay.opaque", b"y")
            elif name.startswith(".wh."):
                os.unlink(path)
                os.mknod(os.path.join(folder, name[4:]), 0o20000, 0)


class Peers:
    """The mount commands of one image. `work` is removed, `inputs` stays."""

    def __init__(self, bench, image, work):
        self.bench, self.image, self.work = bench, image, work
        self.store = os.path.join(work, "store")
        self.reference = run(bench.strata, "--root", self.store, "load", "-q", "-i",
                             image.gzip).split()[-1]
        lowers = bench.inputs.make("lowers-" + image.name, self.unpack_all)
        self.lowers = [os.path.join(lowers, name) for name in
                       sorted(os.listdir(lowers), key=int, reverse=True)]
        self.squash = bench.inputs.make(image.name + ".squashfs", self.pack(
            "mksquashfs", "{tree}", "{image}", "-quiet", "-no-progress"))
        self.erofs = bench.inputs.make(image.name + ".erofs", self.pack(
            "mkfs.erofs", "--quiet", "-zlz4hc", "{image}", "{tree}")) \
            if shutil.which("erofsfuse") else None
        # Mounting compiles the tree of the image; from here on it exists.
        for peer in ("strata", "strata kernel"):
            with self.mount(peer):
                pass

    def unpack_all(self, path):
        """All layers as overlay directories 0, 1, ..., the base first."""
        for number, layer in enumerate(self.image.layers(self.image.gzip)):
            unpack_layer(layer, os.path.join(path, str(number)))
        os.makedirs(os.path.join(path, "99"))  # overlayfs requires two lowers

    def pack(self, *command):
        """A maker of an image file from the merged tree."""
        def maker(path):
            with self.mount("overlayfs") as mount:
                run(*[word.format(tree=mount.target, image=path) for word in command])
        return maker

    def names(self):
        """The peers that can run here, the base of the ratios first."""
        names = ["overlayfs", "strata", "strata kernel", "fuse-overlayfs 1", "fuse-overlayfs 2", "squashfuse"]
        return names + ["erofsfuse"] if self.erofs else names

    def command(self, peer, target):
        """The command that mounts the image at `target`."""
        lower = "lowerdir=" + ":".join(self.lowers)
        bench = self.bench
        strata = [bench.strata, "--root", self.store, "mount", self.reference, target]
        return {
            "overlayfs": lambda: ["mount", "-t", "overlay", "overlay", "-o", lower, target],
            "fuse-overlayfs 1": lambda: ["fuse-overlayfs", "-o", lower, target],
            "fuse-overlayfs 2": lambda: [bench.fuse_overlayfs_2, "-o", lower, target],
            "squashfuse": lambda: [shutil.which("squashfuse_ll") or "squashfuse", self.squash,
                                   target],
            "erofsfuse": lambda: ["erofsfuse", self.erofs, target],
            "strata": lambda: strata + ["--backend", "fuse"],
            "strata kernel": lambda: strata + ["--backend", "kernel"],
            "strata passthrough": lambda: strata + ["--backend", "fuse", "--profile",
                                                    "passthrough"],
        }[peer]()

    def backing(self, peer):
        """The files that the peer's mount reads."""
        if peer.startswith("strata"):
            return self.store
        return {"squashfuse": self.squash, "erofsfuse": self.erofs}.get(
            peer, os.path.dirname(self.lowers[0]))

    @contextlib.contextmanager
    def mount(self, peer):
        """Mounts, and unmounts at the end."""
        target = os.path.join(self.work, "mnt-" + peer.replace(" ", "-"))
        os.makedirs(target, exist_ok=True)
        mount = Mount(self.command(peer, target), target, peer not in WITHOUT_DAEMON)
        try:
            yield mount
        finally:
            mount.end()


class Mount:
    """An existing mount."""

    def __init__(self, command, target, has_daemon=True):
        self.target = target
        # The daemon keeps standard error open, so it cannot be a pipe that is read to its end.
        run_detached(command, target + ".err")
        self.pid = daemon_of(target) if has_daemon else None
        self.before = cpu_of(self.pid) if self.pid else 0.0

    def end(self):
        """Unmounts, and waits until the daemon is gone."""
        unmount(self.target)
        while self.pid and os.path.exists("/proc/%d" % self.pid):
            time.sleep(0.01)

    def cpu(self):
        """CPU seconds of the daemon since its start."""
        return cpu_of(self.pid) - self.before if self.pid else 0.0

    def memory(self):
        """The daemon's resident and anonymous kB."""
        found = {}
        with open("/proc/%d/status" % self.pid, encoding="ascii") as file:
            for line in file:
                if line.startswith(("VmRSS", "RssAnon")):
                    found[line.split(":")[0]] = int(line.split()[1])
        return found["VmRSS"], found["RssAnon"]

    def requests(self, argv):
        """Runs a command in the mount; the sample, with the FUSE requests that it caused."""
        if not self.pid:
            return dict(sample(argv, cwd=self.target), requests=0)
        out = self.target + ".perf"
        connection = os.minor(os.stat(self.target).st_dev)
        got = sample(["perf", "stat", "-x", ",", "-o", out, "-a", "-e", "fuse:fuse_request_send",
                      "--filter", "connection == %d" % connection, "--", *argv], cwd=self.target)
        with open(out, encoding="utf-8") as file:
            counts = [line.split(",")[0] for line in file if "fuse_request_send" in line]
        if not counts or not counts[0].isdigit():
            raise Failed("perf counts no fuse:fuse_request_send here")
        return dict(got, requests=int(counts[0]))


def unmount(target):
    """Unmounts, when no process uses it any more. Raises Failed."""
    for _ in range(100):
        try:
            run("umount", target)
            return
        except Failed:
            time.sleep(0.05)
    raise Failed("%s stays busy" % target)


def run_detached(command, errors):
    """Runs a command that may leave a daemon behind with its descriptors; its messages go to the
    file `errors`. Raises Failed."""
    with open("/dev/null", "r+b") as null, open(errors, "w+", encoding="utf-8") as said:
        status = os.waitstatus_to_exitcode(os.waitpid(os.posix_spawnp(
            command[0], command, os.environ, file_actions=[
                (os.POSIX_SPAWN_DUP2, null.fileno(), 0), (os.POSIX_SPAWN_DUP2, null.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, said.fileno(), 2)]), 0)[1])
        if status:
            said.seek(0)
            raise Failed("%s: status %d: %s" % (" ".join(command)[:150], status,
                                                said.read().strip()[-200:]))


def daemon_of(target):
    """The process that has the mountpoint among its arguments."""
    for _ in range(100):
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) == os.getpid():
                continue
            try:
                with open("/proc/%s/cmdline" % name, "rb") as file:
                    if target.encode() in file.read().split(b"\0"):
                        return int(name)
            except OSError:
                pass  # it ended in between
        time.sleep(0.01)
    raise Failed("no daemon serves " + target)
