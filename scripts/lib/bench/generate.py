"""Generates layers and images of any size, the same ones every time.

The model: a layer is a stream of members (name, kind, payload); they are written as plain ustar
with headers made here, since tarfile takes thirty times as long and a million entries are wanted.
Contents are words drawn with a seed, so they compress as source text does. An image is an OCI
layout directory with the tag `latest`.

Images overlap as real images do: they share whole layers (a base that many images
have), and layers of different digests share files (`pool`: contents drawn from a
common set, the rest new).
"""
import hashlib
import json
import os
import random
import zlib

from measure import run

WORDS = ("layer blob digest manifest config image lower upper merged whiteout opaque copy rename "
         "origin content entry node dialect the of and to in is that it for as with on").split()


def header(name, kind, size=0, link="", mode=0o644, mtime=1_600_000_000):
    """One ustar header. Names have at most 100 bytes."""
    name, link = name.encode(), link.encode()
    assert len(name) <= 100 and len(link) <= 100, name
    front = b"%s%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        name.ljust(100, b"\0"), mode, 0, 0, size, mtime)
    back = b"%s%sustar\00000" % (kind, link.ljust(100, b"\0"))
    checksum = sum(front) + 8 * 32 + sum(back)
    return (b"%s%06o\0 %s" % (front, checksum, back)).ljust(512, b"\0")


def text(rng, size):
    """Words, about as compressible as source code."""
    out, length = [], 0
    while length < size:
        out.append("%s%x" % (rng.choice(WORDS), rng.getrandbits(12)))
        length += len(out[-1]) + 1
    return " ".join(out).encode()[:size]


def tree(seed, count, size=(50, 20_000), pool=None, changed=0.0, root="t", per_dir=50, mtime=0):
    """COUNT members below `root`: a tenth symlinks, a directory for each PER_DIR, the rest files.

    With `pool` (a list of contents) all but `changed` of the files are drawn from it."""
    rng = random.Random(seed)
    at = 1_600_000_000 + mtime
    yield header(root + "/", b"5", mode=0o755, mtime=at)
    place, made, made_dirs = root, 1, 0
    while made < count:
        if made % per_dir == 1:
            wide = made_dirs // 50
            if made_dirs % 50 == 0:
                yield header("%s/g%d/" % (root, wide), b"5", mode=0o755, mtime=at)
                made += 1
            place = "%s/g%d/d%d" % (root, wide, made_dirs)
            yield header(place + "/", b"5", mode=0o755, mtime=at)
            made_dirs, made = made_dirs + 1, made + 1
            continue
        name = "%s/file-%d.txt" % (place, made)
        if made % 10 == 5:
            yield header(name, b"2", link="file-%d.txt" % (made - 1), mode=0o777, mtime=at)
        else:
            data = pool[rng.randrange(len(pool))] if pool and rng.random() >= changed else \
                text(rng, int(size[0] * (size[1] / size[0]) ** rng.random()))
            yield file(name, data, at)
        made += 1


def file(name, data, mtime=1_600_000_000):
    """A member with its body."""
    return header(name, b"0", len(data), mtime=mtime) + data + b"\0" * (-len(data) % 512)


class Layout:
    """An OCI layout directory that is being written."""

    def __init__(self, path):
        self.path = path
        os.makedirs(os.path.join(path, "blobs/sha256"), exist_ok=True)

    def layer(self, members, compress=True):
        """Writes a layer, gzip or plain; its descriptor and diff id."""
        temporary = os.path.join(self.path, "new")
        diff, blob, size = hashlib.sha256(), hashlib.sha256(), 0
        deflate = zlib.compressobj(1, zlib.DEFLATED, 31) if compress else None
        with open(temporary, "wb") as out:
            def write(data):
                nonlocal size
                size += len(data)
                blob.update(data)
                out.write(data)

            def take(data):
                diff.update(data)
                write(deflate.compress(data) if deflate else data)

            batch = bytearray()
            for member in members:
                batch += member
                if len(batch) > 1 << 20:
                    take(bytes(batch))
                    batch.clear()
            take(bytes(batch) + b"\0" * 1024)
            if deflate:
                write(deflate.flush())
        os.rename(temporary, os.path.join(self.path, "blobs/sha256", blob.hexdigest()))
        kind = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if compress else "")
        return {"mediaType": kind, "digest": "sha256:" + blob.hexdigest(), "size": size,
                "diff": "sha256:" + diff.hexdigest()}

    def document(self, value):
        """Writes a JSON blob; its digest and size."""
        data = json.dumps(value).encode()
        name = hashlib.sha256(data).hexdigest()
        with open(os.path.join(self.path, "blobs/sha256", name), "wb") as out:
            out.write(data)
        return {"digest": "sha256:" + name, "size": len(data)}

    def image(self, layers, annotations, **config):
        """Writes config and manifest of an image, base first; its line in the index."""
        config = self.document(dict({
            "architecture": "amd64", "os": "linux", "config": {}, "rootfs": {
                "type": "layers", "diff_ids": [layer["diff"] for layer in layers]}}, **config))
        manifest = self.document({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": dict(config, mediaType="application/vnd.oci.image.config.v1+json"),
            "layers": [{key: layer[key] for key in ("mediaType", "digest", "size")}
                       for layer in layers]})
        return dict(manifest, mediaType="application/vnd.oci.image.manifest.v1+json",
                    annotations=annotations)

    def images(self, images):
        """Writes the index: {tag: layers, base first}."""
        self.index(self.image(layers, {"org.opencontainers.image.ref.name": tag})
                   for tag, layers in images.items())

    def index(self, manifests):
        """Writes the index, of what `image` gave."""
        manifests = list(manifests)
        with open(os.path.join(self.path, "index.json"), "w", encoding="ascii") as out:
            json.dump({"schemaVersion": 2, "manifests": manifests}, out)
        with open(os.path.join(self.path, "oci-layout"), "w", encoding="ascii") as out:
            out.write('{"imageLayoutVersion":"1.0.0"}')


def repository(path, entries):
    """A bare git repository with one commit of ENTRIES generated files."""
    source = path + ".tree"
    os.makedirs(source)
    with open(path + ".tar", "wb") as out:
        out.write(b"".join(tree(5, entries)) + b"\0" * 1024)
    run("tar", "-xf", path + ".tar", "-C", source)
    name = ["-c", "user.name=bench", "-c", "user.email=bench@stratafs.test"]
    run("git", "init", "-q", "-b", "main", source)
    run("git", "-C", source, "add", ".")
    run("git", *name, "-C", source, "commit", "-q", "-m", "generated")
    run("git", "clone", "-q", "--bare", "--no-hardlinks", source, path)
    run("rm", "-r", source, path + ".tar")
