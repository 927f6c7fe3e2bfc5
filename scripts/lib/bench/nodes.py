"""Part `nodes`: strata as the layer store of containerd, beside containerd's overlayfs snapshotter.

The model: a *node* is a containerd with empty directories of its own, and for strata a
strata-snapshotter; every run has a new one, and all pull the same images, one after the other, from
one registry on loopback whose blobs are in the page cache. Two ways to pull: `ctr` (strata applies
what containerd has fetched, as its diff service), and CRI, which says to the snapshotter what it
pulls (strata then fetches by itself, and containerd keeps no layers). Each has containerd's overlayfs
snapshotter with its own differ, pulled in the same way, as its peer.

After the pull of a node come: what its directories take on disk; the resident memory of
strata-snapshotter; and for each image the time to prepare a snapshot for a container and to
mount it, for the first container of an image and for later ones. `snapshots` asks a node with 200
chains of four committed snapshots, each with an active one on top. containerd asks a snapshotter for
each snapshot of a list by itself; `strata direct` is asked without containerd.
"""
import ctypes
import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../containerd"))

from measure import (Failed, forget_deleted, interleave_many, read_all, run, sample,  # noqa: E402
                     summary, unmount_below)
from pulling import Registry  # noqa: E402
from cri import Cri  # noqa: E402
from snapshots import Snapshots  # noqa: E402

IMAGES = ("debian", "slim", "python", "python-rebuilt", "app-numpy", "app-pandas", "app-pandas-zstd",
          "node", "postgres", "tools")
PEERS = ("overlayfs", "strata")
NAMESPACES = {"ctr": "default", "CRI": "k8s.io"}
FLAGS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8}
LIBC = ctypes.CDLL(None, use_errno=True)


class Node:
    """A containerd, and what it needs, in a directory of its own."""

    def __init__(self, bench, directory, snapshotter):
        self.bench, self.directory, self.snapshotter = bench, directory, snapshotter
        self.lib = os.path.join(bench.root, "scripts/lib/containerd")
        self.path = run(self.lib + "/fetch", "2.1").strip() + ":" + os.environ["PATH"]
        self.socket, self.daemons, self.cri = directory + "/c.sock", [], None
        os.makedirs(directory)

    def __enter__(self):
        config = run("bash", "-c", "work=$1; . $2/daemons; containerd_config", "bash",
                     self.directory, self.lib, env=dict(os.environ, PATH=self.path))
        if self.snapshotter == "overlayfs":
            config = without_strata(config)
        with open(self.directory + "/containerd.toml", "w", encoding="ascii") as file:
            file.write(config)
        if self.snapshotter == "strata":
            self.start(os.path.join(os.path.dirname(self.bench.strata), "strata-snapshotter"),
                       "--root", self.directory + "/store", "--run", self.directory + "/names",
                       "--address", self.directory + "/s.sock", "--content",
                       self.directory + "/containerd/io.containerd.content.v1.content",
                       "--metrics", self.directory + "/m.sock", "--containerd", self.socket)
        self.start("containerd", "-c", self.directory + "/containerd.toml")
        for _ in range(200):
            if subprocess.run(["ctr", "-a", self.socket, "version"], capture_output=True,
                              env=dict(os.environ, PATH=self.path), check=False).returncode == 0:
                return self
            time.sleep(0.05)
        raise Failed("containerd does not start: see %s/containerd.log" % self.directory)

    def start(self, *command):
        """Starts a daemon, its messages in a file of its name."""
        name = os.path.basename(command[0])
        with open("%s/%s.log" % (self.directory, name), "wb") as log:
            self.daemons.append(subprocess.Popen(command, stdout=log, stderr=log,
                                                 env=dict(os.environ, PATH=self.path)))

    def __exit__(self, *_):
        for daemon in self.daemons:
            daemon.terminate()
        for daemon in self.daemons:
            daemon.wait()
        unmount_below(self.directory)

    def pull(self, way, reference):
        """Pulls and unpacks an image; its seconds."""
        if way == "ctr":
            command = ["ctr", "-a", self.socket, "images", "pull", "--local", "--plain-http",
                       "--snapshotter", self.snapshotter, reference]
            return sample(command, env={"PATH": self.path})["value"]
        # As a kubelet does, which runs and is connected.
        if not self.cri:
            self.cri = Cri(self.socket)
        begun = time.perf_counter()
        self.cri.pull(reference)
        return time.perf_counter() - begun

    def kilobytes(self):
        """What the directories take on disk, without what is mounted in them."""
        return int(run("du", "-skx", self.directory).split()[0])

    def resident(self):
        """The resident kB of strata-snapshotter."""
        with open("/proc/%d/status" % self.daemons[0].pid, encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

    def snapshots(self, way):
        """A client of its snapshotter."""
        return Snapshots(self.socket, self.snapshotter, NAMESPACES[way])


def without_strata(config):
    """The configuration of a containerd that has only its own plugins."""
    config = config.replace('snapshotter = "strata"', 'snapshotter = "overlayfs"')
    config = config.replace('differ = "strata-diff"', 'differ = "walking"')
    config = config.replace('"strata-diff", ', "")
    sections = re.split(r"(?m)^(?= *\[)", config)
    return "".join(each for each in sections if "[proxy_plugins." not in each)


def chain_of(layout):
    """The chain id of the image of a layout (OCI image specification, config.md)."""
    def blob(digest):
        with open(os.path.join(layout, "blobs/sha256", digest.split(":")[1]), "rb") as file:
            return json.load(file)
    with open(os.path.join(layout, "index.json"), encoding="utf-8") as file:
        manifest = blob(json.load(file)["manifests"][0]["digest"])
    chain = ""
    for diff in blob(manifest["config"]["digest"])["rootfs"]["diff_ids"]:
        chain = "sha256:" + hashlib.sha256(
            ("%s %s" % (chain, diff)).encode()).hexdigest() if chain else diff
    return chain


def mount_all(mounts, target):
    """Mounts what a snapshotter says, as containerd does: by mount(2)."""
    for kind, source, options in mounts:
        flags, data = 0, []
        for option in options:
            if option in ("bind", "rbind"):
                flags |= 4096
            elif option in FLAGS:
                flags |= FLAGS[option]
            elif option != "rw":
                data.append(option)
        if LIBC.mount(source.encode(), target.encode(), kind.encode(), flags,
                      ",".join(data).encode()):
            raise Failed("mount %s: %s" % (kind, os.strerror(ctypes.get_errno())))


def measure(bench, part, work, sections):
    """Runs the given sections (pull, snapshots)."""
    for section in sections:
        {"pull": pull, "snapshots": snapshots}[section](bench, part, work)


def pull(bench, part, work):
    names = IMAGES[:2] if bench.quick else IMAGES
    layouts = {name: os.path.join(bench.corpus, "oci", name) for name in names}
    chains = {name: chain_of(layout) for name, layout in layouts.items()}
    number = 0
    with Registry(work + "/registry") as host:
        for name, layout in layouts.items():
            run("skopeo", "--policy", bench.inputs.policy, "copy", "-q", "--preserve-digests",
                "--dest-tls-verify=false", "oci:%s:latest" % layout,
                "docker://%s/%s:1" % (host, name))

        def case(peer, way):
            nonlocal number
            number += 1
            directory = "%s/n%d" % (work, number)
            forget_deleted(work + "/registry/data", bench.strata)
            with Node(bench, directory, peer) as node:
                read_all(node.path.split(":")[0])
                took = sum(node.pull(way, "%s/%s:1" % (host, name)) for name in names)
                os.sync()
                # Whatever keeps memory for more work has given it back.
                time.sleep(5)
                got = {"pull and unpack": {"value": took},
                       "disk": {"value": node.kilobytes()}}
                if peer == "strata":
                    got["resident memory"] = {"value": node.resident()}
                got.update(starts(node.snapshots(way), chains.values(), directory))
            run("rm", "-rf", "--one-file-system", directory)
            return got
        for way in ("ctr", "CRI"):
            rows, failed = interleave_many(
                bench.repeat, {peer: lambda peer=peer, way=way: case(peer, way) for peer in PEERS})
            for name, got in rows.items():
                unit = "kB" if name in ("disk", "resident memory") else "s"
                part.row("pull", name, got, failed, way, "%d images" % len(names), unit=unit,
                         repeat=bench.repeat)


def starts(client, chains, directory):
    """The mean seconds to prepare and mount, for the first container of each image and the next."""
    target = directory + "/rootfs"
    os.mkdir(target)
    took = {"first": [], "again": []}
    for turn in range(6):
        for number, chain in enumerate(chains):
            key = "c%d-%d" % (turn, number)
            begun = time.perf_counter()
            mount_all(client.prepare(key, chain), target)
            took["again" if turn else "first"].append(time.perf_counter() - begun)
            run("umount", target)
            client.remove(key)
    return {"prepare and mount, first": {"value": statistics.mean(took["first"])},
            "prepare and mount, again": {"value": statistics.mean(took["again"])}}


def snapshots(bench, part, work):
    """List, Stat and Usage in a node with 1,000 snapshots, and how Prepare grows on the way."""
    chains = 20 if bench.quick else 200
    calls, growth = {}, {}
    for peer in PEERS:
        with Node(bench, "%s/%s" % (work, peer), peer) as node:
            client = node.snapshots("ctr")
            clients = {peer: (client, "a7")}
            for number in range(chains):
                took = chain(client, number, "%s/%s-%d" % (work, peer, number))
                growth.setdefault((number // (chains // 4) + 1) * (chains // 4) * 5, {}) \
                    .setdefault(peer, []).append({"value": took})
            if peer == "strata":
                direct = Snapshots(node.directory + "/s.sock", peer)
                clients["strata direct"] = direct, direct.key_like("/a7")
            for who, (asked, key) in clients.items():
                ask = {"List": asked.list, "Stat": lambda asked=asked, key=key: asked.stat(key),
                       "Usage": lambda asked=asked, key=key: asked.usage(key)}
                for name, call in ask.items():
                    for _ in range(10 * bench.repeat):
                        begun = time.perf_counter()
                        call()
                        calls.setdefault(name, {}).setdefault(who, []).append(
                            {"value": time.perf_counter() - begun})
            if client.list() != chains * 5:
                raise Failed("%s lists %d snapshots of %d" % (peer, client.list(), chains * 5))
    given = str(chains * 5)
    for name, got in calls.items():
        part.row("snapshots", name, {peer: summary(all_) for peer, all_ in got.items()}, {}, "",
                 given, repeat=10 * bench.repeat)
    for count, got in growth.items():
        part.row("snapshots", "Prepare", {peer: summary(all_) for peer, all_ in got.items()}, {}, "",
                 str(count), repeat=chains // 4)


def chain(client, number, target):
    """Four committed snapshots with a file each and one active; the seconds of a Prepare."""
    os.mkdir(target)
    parent, took = "", []
    for level in range(5):
        key = "%s%d" % ("a" if level == 4 else "k%d-" % level, number)
        begun = time.perf_counter()
        mounts = client.prepare(key, parent)
        took.append(time.perf_counter() - begun)
        if level == 4:
            break
        mount_all(mounts, target)
        with open("%s/file-%d" % (target, level), "w", encoding="ascii") as file:
            file.write("%d %d" % (number, level))
        run("umount", target)
        parent = "s%d-%d" % (level, number)
        client.commit(parent, key)
    return statistics.mean(took)
