"""The images that are measured.

The model: an input is one image in several forms: an OCI layout with gzip and with zstd, the same
as one tar, a docker archive. With --quick they are small and generated; else they are the images
that `scripts/corpus` builds from Debian and Python packages. Inputs that are made here stay in the
bench directory's `inputs/` for the next run; unfinished inputs are not kept.
"""
import json
import os
import shutil
import tarfile

import generate
from measure import run

POLICY = '{"default":[{"type":"insecureAcceptAnything"}]}'


class Image:
    """One image in its forms; `None` for a form that it does not have."""

    def __init__(self, name, gzip, zstd=None, docker=None):
        self.name, self.gzip, self.zstd, self.docker = name, gzip, zstd, docker

    def layers(self, layout):
        """The paths of the layers' blobs, base first."""
        def blob(digest):
            return os.path.join(layout, "blobs/sha256", digest.split(":")[1])
        with open(os.path.join(layout, "index.json"), encoding="utf-8") as file:
            manifest = json.load(file)["manifests"][0]["digest"]
        with open(blob(manifest), encoding="utf-8") as file:
            return [blob(layer["digest"]) for layer in json.load(file)["layers"]]

    def docker_layers(self):
        """The members of the docker archive that are layers, base first."""
        return json.loads(run("tar", "-xOf", self.docker, "manifest.json"))[0]["Layers"]

    def facts(self):
        """Size and layers, for the report."""
        layers = self.layers(self.gzip)
        return {"layers": len(layers), "bytes": sum(os.path.getsize(layer) for layer in layers)}


class Inputs:
    """Finds or makes inputs. `directory` is kept between runs."""

    def __init__(self, directory, corpus, quick):
        self.directory, self.corpus, self.quick = directory, corpus, quick
        os.makedirs(directory, exist_ok=True)
        self.policy = os.path.join(directory, "policy.json")
        with open(self.policy, "w", encoding="ascii") as file:
            file.write(POLICY)

    def make(self, name, maker):
        """The path of NAME, made by maker(path) if it does not exist."""
        path = os.path.join(self.directory, name)
        if not os.path.exists(path):
            new = path + ".new"
            shutil.rmtree(new, ignore_errors=True)
            if os.path.isfile(new):
                os.unlink(new)
            maker(new)
            os.rename(new, path)
        return path

    def image(self):
        """The image of most rows: four layers of an application."""
        if self.quick:
            return self.generated("small", 0)
        return self.from_corpus("app-pandas")

    def pair(self):
        """An image, and the same rebuilt: other digests, mostly equal contents."""
        if self.quick:
            return self.generated("small", 0), self.generated("small-rebuilt", 1)
        return self.from_corpus("python"), self.from_corpus("python-rebuilt")

    def from_corpus(self, name):
        """An image of scripts/corpus."""
        def path(*parts):
            whole = os.path.join(self.corpus, *parts)
            return whole if os.path.exists(whole) else None
        gzip = path("oci", name)
        if gzip is None:
            raise SystemExit("bench: no %s in %s; run scripts/corpus %s, or take --quick"
                             % (name, self.corpus, self.corpus))
        return Image(name, gzip, path("oci", name + "-zstd"), path("docker", name + ".tar"))

    def generated(self, name, mtime):
        """Three layers of 3,000 entries; with an mtime nothing but times differ, and 5 %."""
        def layout(path):
            made = generate.Layout(path)
            layers = []
            for number, count in enumerate((1800, 900, 300)):
                pool = [generate.text(generate.random.Random(i), 50 + i * 17 % 9000)
                        for i in range(number * 2000, number * 2000 + 1500)]
                layers.append(made.layer(generate.tree(
                    number + mtime * 10, count, pool=pool, changed=0.05, root="t%d" % number,
                    mtime=mtime)))
            made.images({"latest": layers})
        gzip = self.make(name, layout)
        zstd = self.make(name + "-zstd", lambda path: self.skopeo(
            "--dest-compress", "--dest-compress-format", "zstd", "oci:%s:latest" % gzip,
            "oci:%s:latest" % path))
        docker = self.make(name + ".docker.tar", lambda path: self.skopeo(
            "oci:%s:latest" % gzip, "docker-archive:%s:stratafs.test/%s:latest" % (path, name)))
        return Image(name, gzip, zstd, docker)

    def big(self):
        """An image with one big file at its root, /big."""
        mebibytes = 16 if self.quick else 1024
        # Inputs that are made from an image are kept by its name.
        name, size = "big-%dM" % mebibytes, mebibytes << 20

        def layout(path):
            made = generate.Layout(path)
            rng = generate.random.Random(1)
            block = rng.randbytes(1 << 20)
            body = (block[i:] + block[:i] for i in range(size >> 20))
            members = [generate.header("big", b"0", size)]
            made.images({"latest": [made.layer((part for many in (members, body) for part in many),
                                               compress=False)]})
        return Image(name, self.make(name, layout))

    def spread(self, image, strata, count):
        """The tree of an image as another one of this many layers: directories are in each layer
        that has something of them, everything else is dealt out one by one."""
        name = "%s-in-%d" % (image.name, count)

        def layout(path):
            whole, made = path + ".tar", generate.Layout(path)
            store = path + ".store"
            reference = run(strata, "--root", store, "load", "-q", "-i", image.gzip).split()[-1]
            run(strata, "--root", store, "-q", "export", "-o", whole, reference)
            shutil.rmtree(store)
            parts = [path + ".%d.tar" % number for number in range(count)]
            deal(whole, parts)
            layers = []
            for part in parts:
                with open(part, "rb") as file:
                    layers.append(made.layer(iter(lambda: file.read(1 << 20), b"")))
            for each in (whole, *parts):
                os.unlink(each)
            made.images({"latest": layers})
        return Image(name, self.make(name, layout))

    def as_tar(self, layout):
        """A layout as one tar, for peers that read no directories."""
        name = os.path.basename(layout) + ".oci.tar"
        return self.make(name, lambda path: run("tar", "-cf", path, "-C", layout, "."))

    def skopeo(self, *args):
        """Copies an image from one form to another."""
        run("skopeo", "--policy", self.policy, "copy", "-q", *args)


def deal(whole, parts):
    """Deals the members of a tar out to others; a hard link goes where its target is."""
    outs = [tarfile.open(part, "w", format=tarfile.PAX_FORMAT) for part in parts]
    dirs, have, place = {}, [set() for _ in parts], {}
    with tarfile.open(whole) as tar:
        for number, member in enumerate(tar):
            name = member.name
            if member.isdir():
                dirs[name] = member
                # One that stays empty is in the first.
                at = 0
            else:
                at = place[member.linkname] if member.islnk() else number % len(parts)
            place[name] = at
            above = name.split("/")[:-1]
            for depth in range(1, len(above) + 1):
                path = "/".join(above[:depth])
                if path in dirs and path not in have[at]:
                    have[at].add(path)
                    outs[at].addfile(dirs[path])
            if not member.isdir():
                outs[at].addfile(member, tar.extractfile(member) if member.isreg() else None)
            elif name not in have[at]:
                have[at].add(name)
                outs[at].addfile(member)
    for out in outs:
        out.close()
