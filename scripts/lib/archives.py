"""Reads the layers of container images, with tarfile and hashlib alone.

A source is an OCI layout directory, an OCI archive or a docker archive; zstd layers go through
zstd(1). `read` gives all images and, for each layer, what its regular files leave on disk: a
member that a later member of the same layer replaces leaves nothing, and whiteouts touch lower
layers only.
"""
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile

sys.dont_write_bytecode = True  # no __pycache__ in the work tree
from imagefacts import Padded


class Source:
    """A layout directory or an archive file: bytes by name."""

    def __init__(self, path):
        self.path = path
        self.tar = None if os.path.isdir(path) else tarfile.open(path)
        if self.tar:
            self.members = {os.path.normpath(m.name): m for m in self.tar.getmembers()}

    def has(self, name):
        return name in self.members if self.tar else os.path.exists(os.path.join(self.path, name))

    def open(self, name):
        if not self.tar:
            return open(os.path.join(self.path, name), "rb")
        member = self.members[name]
        while member.issym() or member.islnk():  # as older dockers and podman write layers
            folder = os.path.dirname(name) if member.issym() else ""
            name = os.path.normpath(os.path.join(folder, member.linkname))
            member = self.members[name]
        return self.tar.extractfile(member)

    def json(self, name):
        with self.open(name) as file:
            return json.load(file)

    def images(self):
        """(config as it is, names of the layers' blobs) of each image."""
        if self.has("manifest.json"):  # a docker archive first: newer ones are both
            for image in self.json("manifest.json"):
                yield os.path.normpath(image["Config"]), list(map(os.path.normpath, image["Layers"]))
            return
        blob = lambda digest: "blobs/" + digest.replace(":", "/")
        for described in self.json("index.json")["manifests"]:
            manifest = self.json(blob(described["digest"]))
            layers = [blob(layer["digest"]) for layer in manifest["layers"]]
            yield blob(manifest["config"]["digest"]), layers


def decompressed(file):
    magic = file.read(4)
    file.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return gzip.open(file)
    if magic == b"\x28\xb5\x2f\xfd":
        data = subprocess.run(["zstd", "-dc"], input=file.read(), stdout=subprocess.PIPE, check=True)
        return io.BytesIO(data.stdout)
    return file


def clean(path):
    """The path below the root, `.` and `..` resolved without leaving it."""
    parts = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def files(stream):
    """The (digest, size, number of the inode) of every path of a layer that is a regular file."""
    found, above, later = {}, {}, []
    stream = io.BufferedReader(Padded(stream))
    with tarfile.open(fileobj=stream, mode="r|", encoding="utf-8", errors="surrogateescape") as tar:
        for number, info in enumerate(tar):
            tar.members = []
            path = clean(info.name)
            if os.path.basename(path).startswith(".wh."):
                continue
            if not info.isdir() and path in above:
                for name in [n for n in found if n.startswith(path + "/")]:
                    del found[name]
            found.pop(path, None)
            later = [one for one in later if one[0] != path]
            parent = os.path.dirname(path)
            while parent and parent not in above:
                found.pop(parent, None)
                above[parent] = True
                parent = os.path.dirname(parent)
            if info.isreg():
                digest = hashlib.sha256()
                body = tar.extractfile(info)
                while chunk := body.read(1 << 20):
                    digest.update(chunk)
                found[path] = (digest.hexdigest(), info.size, number)
            elif info.islnk() and clean(info.linkname) in found:
                found[path] = found[clean(info.linkname)]
            elif info.islnk():
                later.append((path, clean(info.linkname)))
    for path, target in later:  # before their target; else into a lower layer, which keeps it
        if target in found:
            found[path] = found[target]
    return found


def read(sources):
    """({image id: layers, base first}, {layer: {path: (digest, size, inode)}})."""
    images, layers = {}, {}
    for path in sources:
        source = Source(path)
        for config, blobs in source.images():
            with source.open(config) as file:
                data = file.read()
            diff_ids = json.loads(data)["rootfs"]["diff_ids"]
            images["sha256:" + hashlib.sha256(data).hexdigest()] = diff_ids
            for diff_id, blob in zip(diff_ids, blobs):
                if diff_id not in layers:
                    layers[diff_id] = files(decompressed(source.open(blob)))
    return images, layers
