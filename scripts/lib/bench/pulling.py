"""Part `pull`: from a registry on loopback to unpacked files.

The model: one docker-registry serves the image, its blobs in the page cache; every run pulls into a
store of its own that did not exist before, and nothing is deleted until the part is over (see
importing.py). Dirty pages are written out before each run, outside of the measured time; strata's
own syncfs is inside. The base of the ratios is `podman`.

States: `first` into an empty store, `second` with the image already there.
"""
import os
import re
import subprocess
import time

from importing import Import
from measure import Failed, interleave, run, sample, settle

CONFIG = """version: 0.1
log: {level: info}
storage: {filesystem: {rootdirectory: %s}}
http: {addr: "127.0.0.1:0"}
"""

INSECURE = """[[registry]]
location = "%s"
insecure = true
"""


class Registry:
    """A docker-registry that lives as long as the block."""

    def __init__(self, directory):
        self.directory = directory

    def __enter__(self):
        os.makedirs(self.directory, exist_ok=True)
        config, log = self.directory + "/config.yml", self.directory + "/log"
        with open(config, "w", encoding="ascii") as file:
            file.write(CONFIG % (self.directory + "/data"))
        with open(log, "wb") as file:
            self.server = subprocess.Popen(["docker-registry", "serve", config], stdout=file,
                                           stderr=file)
        for _ in range(200):
            with open(log, encoding="utf-8", errors="replace") as file:
                found = re.search(r"listening on (127\.0\.0\.1:\d+)", file.read())
            if found:
                return found.group(1)
            time.sleep(0.05)
        raise Failed("docker-registry does not start: see " + log)

    def __exit__(self, *_):
        self.server.terminate()
        self.server.wait()


class Pull(Import):
    """All peers' ways to pull one reference."""

    def __init__(self, bench, work, host):
        super().__init__(bench, work)
        self.ref = host + "/bench/image:1"
        self.conf = work + "/registries.conf"
        with open(self.conf, "w", encoding="ascii") as file:
            file.write(INSECURE % host)

    def environment(self, store):
        os.makedirs(store + "/tmp", exist_ok=True)
        return {"TMPDIR": store + "/tmp", "CONTAINERS_REGISTRIES_CONF": self.conf}

    def by_strata(self, store):
        """`strata pull`, durable when it returns."""
        return sample([self.bench.strata, "--root", store + "/store", "pull", "-q", self.ref],
                      env=self.environment(store))

    def by_podman(self, store):
        """`podman pull` into its own storage, driver overlay."""
        return sample(["podman", "--root", store + "/root", "--runroot", store + "/run",
                       "--storage-driver", "overlay", "pull", "--signature-policy",
                       self.inputs.policy, "-q", self.ref], env=self.environment(store))

    def by_skopeo(self, store):
        """`skopeo copy` into containers-storage."""
        target = "containers-storage:[overlay@%s/root+%s/run]localhost/bench:latest"
        return sample(["skopeo", "--policy", self.inputs.policy, "copy", "-q",
                       "--src-tls-verify=false", "docker://" + self.ref,
                       target % (store, store)], env=self.environment(store))


def measure(bench, part, work, sections):
    """Runs the given sections (gzip, zstd)."""
    part.absent("umoci, pull", "umoci fetches nothing")
    image = bench.inputs.image()
    for form in sections:
        with Registry(work + "/registry-" + form) as host:
            ways = Pull(bench, work, host)
            run("skopeo", "--policy", bench.inputs.policy, "copy", "-q",
                "--dest-tls-verify=false", "oci:%s:latest" % getattr(image, form),
                "docker://" + ways.ref)
            measure_form(bench, part, ways, form, image)


def measure_form(bench, part, ways, form, image):
    stores = {}
    peers = {"podman": ways.by_podman, "strata": ways.by_strata, "skopeo": ways.by_skopeo}

    def case(peer, way, again):
        def run_it():
            if not again:
                stores[peer] = ways.fresh()
            settle()
            return way(stores[peer])
        return run_it
    # Once to have the blobs in the page cache.
    settle()
    ways.by_strata(ways.fresh())
    for state, again in (("first", False), ("second", True)):
        cases = {peer: case(peer, way, again) for peer, way in peers.items()}
        got, failed = interleave(bench.repeat, cases)
        part.row(form, "pull", got, failed, state, image.name, repeat=bench.repeat)
