"""Part `import`: from an archive to unpacked files.

The model: every run imports into a directory of its own that did not exist before; nothing is
deleted until the whole part is over, since ext4 avoids inodes that were deleted in the last
minutes, which slows every peer; before each run ext4 is made to forget what other programs deleted
(see `forget_deleted`). Dirty pages are written out before each run, outside of the measured time;
strata's own syncfs is inside. The archive and the programs are in the page cache. The base of the
ratios is `tar`: each layer unpacked by GNU tar into a directory of its own, one after the other,
with no hashing, no whiteouts, no database and no sync.

States: `first` into an empty store, `second` with the image already there, `rebuilt` with an
older build of the same image already there.
"""
import os
import subprocess
import time

from measure import Failed, forget_deleted, interleave, read_all, run, sample, settle

CONTAINERD = """version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.restart"]
root = "{0}/root"
state = "{0}/state"
[grpc]
  address = "{0}/sock"
"""


class Import:
    """All peers' ways to import one form of one image."""

    def __init__(self, bench, work):
        self.bench, self.inputs, self.work = bench, bench.inputs, work
        self.number = 0
        self.daemons = []

    def fresh(self):
        """A directory that was never used."""
        self.number += 1
        path = os.path.join(self.work, "%03d" % self.number)
        os.makedirs(path)
        return path

    def strata(self, store, image, form):
        """`strata load`, durable when it returns."""
        return sample([self.bench.strata, "--root", store + "/store", "load", "-q", "-i",
                       getattr(image, form)])

    def tar(self, store, image, form):
        """GNU tar, layer by layer."""
        if form == "docker":
            steps = ["mkdir {0}/{1} && tar -xOf {2} {3} | tar -x -C {0}/{1}".format(
                store, n, image.docker, layer) for n, layer in enumerate(image.docker_layers())]
            return sample(["bash", "-ec", "\n".join(["set -o pipefail", *steps])])
        layout = getattr(image, form)
        option = {"gzip": "-xzf", "zstd": "--zstd -xf"}[form]
        steps = ["mkdir {0}/{1} && tar {2} {3} -C {0}/{1}".format(store, n, option, layer)
                 for n, layer in enumerate(image.layers(layout))]
        return sample(["sh", "-ec", "\n".join(steps)])

    def podman(self, store, image, form):
        """`podman load` into its own storage, driver overlay."""
        source = image.docker if form == "docker" else self.inputs.as_tar(getattr(image, form))
        os.makedirs(store + "/tmp", exist_ok=True)
        return sample(["podman", "--root", store + "/root", "--runroot", store + "/run",
                       "--storage-driver", "overlay", "load", "--signature-policy",
                       self.inputs.policy, "-q", "-i", source], env={"TMPDIR": store + "/tmp"})

    def skopeo(self, store, image, form):
        """`skopeo copy` into containers-storage."""
        source = "docker-archive:" + image.docker if form == "docker" else \
            "oci:%s:latest" % getattr(image, form)
        target = "containers-storage:[overlay@%s/root+%s/run]localhost/bench:latest"
        os.makedirs(store + "/tmp", exist_ok=True)
        return sample(["skopeo", "--policy", self.inputs.policy, "copy", "-q", source,
                       target % (store, store)], env={"TMPDIR": store + "/tmp"})

    def umoci(self, store, image, form):
        """`umoci unpack`: merges into one tree, has no store."""
        return sample(["umoci", "unpack", "--image", getattr(image, form) + ":latest",
                       store + "/bundle"])

    def containerd(self, store, image, form):
        """`ctr image import`, which unpacks; CPU and memory are the daemon's."""
        source = image.docker if form == "docker" else self.inputs.as_tar(getattr(image, form))
        pid = self.start_containerd(store)
        before = cpu_of(pid)
        got = sample(["ctr", "-a", store + "/sock", "images", "import", "--digests", source])
        got["cpu"] += cpu_of(pid) - before
        got["peak_kb"] = peak_of(pid)
        return got

    def start_containerd(self, store):
        """The daemon of one store; it is up when this returns."""
        with open(store + "/config.toml", "w", encoding="ascii") as file:
            file.write(CONTAINERD.format(store))
        with open(store + "/log", "ab") as log:
            daemon = subprocess.Popen(["containerd", "--config", store + "/config.toml"],
                                      stdout=log, stderr=log)
        self.daemons.append(daemon)
        for _ in range(200):
            if daemon.poll() is not None:
                break
            if subprocess.run(["ctr", "-a", store + "/sock", "version"], capture_output=True,
                              check=False).returncode == 0:
                return daemon.pid
            time.sleep(0.05)
        raise Failed("containerd does not start: see " + store + "/log")

    def stop_containerd(self):
        """Ends the daemons that were started here."""
        for daemon in self.daemons:
            if daemon.poll() is None:
                daemon.terminate()
                daemon.wait()
        self.daemons.clear()


def cpu_of(pid):
    """CPU seconds of a process so far."""
    with open("/proc/%d/stat" % pid, encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_of(pid):
    """The largest resident set of a process so far, in kB."""
    with open("/proc/%d/status" % pid, encoding="ascii") as file:
        return int(next(line for line in file if line.startswith("VmHWM")).split()[1])


# Which peers have no figures in which form, and why.
ABSENT = {
    "umoci, zstd": "umoci 0.4 reads no zstd layers",
    "umoci, docker": "umoci reads OCI layouts only",
    "umoci, second": "has no store: it unpacks all of it again",
    "tar, second": "has no store: it unpacks all of it again",
    "tar, rebuilt": "shown is the whole of it: tar knows nothing of the older build",
}


def measure(bench, part, work, sections):
    """Runs the given sections (gzip, zstd, docker, rebuilt)."""
    for key, reason in ABSENT.items():
        part.absent(key, reason)
    ways = Import(bench, work)
    try:
        for form in ("gzip", "zstd", "docker"):
            if form in sections:
                measure_form(bench, part, ways, form)
        if "rebuilt" in sections:
            measure_rebuilt(bench, part, ways)
    finally:
        ways.stop_containerd()


def peers_of(ways, form):
    """The peers that can read a form, tar first."""
    names = ["tar", "strata", "podman", "skopeo", "umoci", "containerd"]
    return {name: getattr(ways, name) for name in names if "%s, %s" % (name, form) not in ABSENT}


def sources(bench, image, form):
    """The files that a load of an image may read."""
    path = getattr(image, form)
    return (path, bench.strata) if form == "docker" else \
        (path, bench.inputs.as_tar(path), bench.strata)


def measure_form(bench, part, ways, form):
    image = bench.inputs.image()
    read_all(getattr(image, form))
    stores = {}

    def first(peer, way):
        def case():
            stores[peer] = ways.fresh()
            forget_deleted(*sources(bench, image, form))
            got = way(stores[peer], image, form)
            if peer == "containerd":
                ways.stop_containerd()
            return got
        return case
    peers = peers_of(ways, form)
    got, failed = interleave(bench.repeat, {p: first(p, way) for p, way in peers.items()})
    part.row(form, "load", got, failed, "first", image.name, repeat=bench.repeat)

    def second(peer, way):
        def case():
            settle()
            got = way(stores[peer], image, form)
            ways.stop_containerd()
            return got
        return case
    again = {p: second(p, way) for p, way in peers.items()
             if p not in failed and "%s, second" % p not in ABSENT}
    got, failed = interleave(bench.repeat, again)
    part.row(form, "load", got, failed, "second", image.name, repeat=bench.repeat)


def measure_rebuilt(bench, part, ways):
    old, new = bench.inputs.pair()
    read_all(new.gzip)
    names = [p for p in peers_of(ways, "gzip") if p != "umoci"]

    def case(peer, older):
        def run_it():
            store = ways.fresh()
            way = getattr(ways, peer)
            if older and peer != "tar":
                way(store, old, "gzip")
                ways.stop_containerd()
            before = used(store)
            forget_deleted(*sources(bench, new, "gzip"))
            got = way(store, new, "gzip")
            ways.stop_containerd()
            got["written_kb"] = used(store) - before
            return got
        return run_it
    for state, older in (("first", False), ("rebuilt", True)):
        got, failed = interleave(bench.repeat, {p: case(p, older) for p in names})
        part.row("rebuilt", "load", got, failed, state, new.name, repeat=bench.repeat)


def used(store):
    """The kB that a directory takes on disk, each inode once."""
    return int(run("du", "-sk", store).split()[0])
