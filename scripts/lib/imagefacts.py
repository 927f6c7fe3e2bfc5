#!/usr/bin/env python3
"""Lists the images of an archive or OCI layout, and facts of their diffs.

usage: imagefacts.py images PATH          one line per image: ID TAB SKOPEO-SOURCE
       imagefacts.py facts LAYOUT:TAG     one JSON object of facts for comparetrees.py

PATH is a docker archive, an OCI archive, an OCI layout directory or
`oci:DIR[:TAG]`. ID is the image id, the digest of the config.

The facts come from reading the tar headers of the layers with Python's tarfile,
independently of every tool that is compared:
  implicit    directories that the topmost layer naming something below them has
              no entry for
  noentry     directories that no layer has an entry for at all
  lowerlinks  hard links whose target is not in the same layer before them
  emptyxattr  paths with an extended attribute of length zero
  gnusparse   files written as old GNU sparse entries, type `S`
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
from treesum import escape


def read_member(tar, name):
    return json.load(tar.extractfile(name))


def oci_images(index, blob, source):
    """(image id, tag or position) of every manifest, indexes within resolved."""
    for position, desc in enumerate(index["manifests"]):
        manifest = blob(desc["digest"])
        if "manifests" in manifest:
            raise SystemExit("imagefacts: nested indexes are not supported")
        name = desc.get("annotations", {}).get("org.opencontainers.image.ref.name")
        yield manifest["config"]["digest"], source + (":" + name if name else "")


def images(path):
    tag = None
    if path.startswith("oci:"):
        path = path[4:]
        if not os.path.isdir(path):
            path, _, tag = path.rpartition(":")
    if os.path.isdir(path):
        def blob(digest):
            with open(os.path.join(path, "blobs", *digest.split(":"))) as f:
                return json.load(f)
        with open(os.path.join(path, "index.json")) as f:
            found = list(oci_images(json.load(f), blob, "oci:" + path))
        return [i for i in found if tag is None or i[1].endswith(":" + tag)]
    with tarfile.open(path) as tar:
        names = {os.path.normpath(n): n for n in tar.getnames()}
        # A docker archive first: docker 25 writes an archive that is both.
        if "manifest.json" in names:
            found = []
            for position, entry in enumerate(read_member(tar, names["manifest.json"])):
                config = os.path.normpath(entry["Config"])
                data = tar.extractfile(names[config]).read()
                source = "docker-archive:" + path
                tags = entry.get("RepoTags") or []
                source += ":" + tags[0] if tags else ":@%d" % position
                found.append(("sha256:" + hashlib.sha256(data).hexdigest(), source))
            return found
        index = read_member(tar, names["index.json"])
        blob = lambda digest: read_member(tar, names["blobs/" + digest.replace(":", "/")])
        return list(oci_images(index, blob, "oci-archive:" + path))


def layer_stream(path):
    with open(path, "rb") as f:
        magic = f.read(4)
    if magic[:2] == b"\x1f\x8b":
        return gzip.open(path)
    if magic == b"\x28\xb5\x2f\xfd":
        return subprocess.Popen(["zstd", "-dc", path], stdout=subprocess.PIPE).stdout
    return open(path, "rb")


class Padded(io.RawIOBase):
    """Zeros after the end: `umoci insert` leaves out the padding of the last
    file and the end blocks, which tarfile calls an error."""

    def __init__(self, inner):
        self.inner = inner

    def readable(self):
        return True

    def readinto(self, buffer):
        data = self.inner.read(len(buffer)) or bytes(len(buffer))
        buffer[:len(data)] = data
        return len(data)


def layer_entries(path):
    with tarfile.open(fileobj=io.BufferedReader(Padded(layer_stream(path))), mode="r|",
                      encoding="utf-8", errors="surrogateescape") as tar:
        for info in tar:
            yield info
            tar.members = []


def hidden(path, gone):
    """Whether a whiteout in `gone` (a path, or "DIR/" for an opaque DIR) hides path."""
    while path:
        if path in gone or os.path.dirname(path) + "/" in gone:
            return True
        path = os.path.dirname(path)
    return False


def facts(layout, tag):
    (_, source), = [i for i in images(layout) if tag is None or i[1].endswith(":" + tag)]
    with open(os.path.join(layout, "index.json")) as f:
        descs = json.load(f)["manifests"]
    desc, = [d for d in descs if d.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag]
    with open(os.path.join(layout, "blobs", *desc["digest"].split(":"))) as f:
        manifest = json.load(f)
    implicit, lowerlinks, emptyxattr, gnusparse = set(), set(), set(), set()
    ever = set()    # directories with an entry in some layer, since they last were deleted
    for layer in manifest["layers"]:
        explicit, parents, seen, deleted = set(), {"."}, set(), []
        for info in layer_entries(os.path.join(layout, "blobs", *layer["digest"].split(":"))):
            name = os.path.normpath(info.name).lstrip("/")
            seen.add(name)
            base = os.path.basename(name)
            if base == ".wh..wh..opq":
                deleted.append(os.path.dirname(name) + "/")
            elif base.startswith(".wh."):
                deleted.append(os.path.join(os.path.dirname(name), base[4:]))
            if info.isdir():
                explicit.add(name)
            parent = os.path.dirname(name)
            while parent:
                parents.add(parent)
                parent = os.path.dirname(parent)
            if info.islnk() and os.path.normpath(info.linkname).lstrip("/") not in seen:
                lowerlinks.add(name)
            if info.type == tarfile.GNUTYPE_SPARSE:
                gnusparse.add(name)
            emptyxattr.discard(name)
            if any(k.startswith("SCHILY.xattr.") and v == "" for k, v in info.pax_headers.items()):
                emptyxattr.add(name)
        gone = set(deleted)
        ever = {d for d in ever if not hidden(d, gone)} | explicit
        implicit -= explicit
        implicit |= parents - explicit
    show = lambda names: sorted(escape(n.encode("utf-8", "surrogateescape")) for n in names)
    return {"implicit": show(implicit), "noentry": show(implicit - ever),
            "lowerlinks": show(lowerlinks), "emptyxattr": show(emptyxattr),
            "gnusparse": show(gnusparse)}


def main(argv):
    if len(argv) != 3 or argv[1] not in ("images", "facts"):
        raise SystemExit(__doc__)
    if argv[1] == "images":
        for identity, source in images(argv[2]):
            print(identity, source, sep="\t")
    else:
        json.dump(facts(*argv[2].rsplit(":", 1)), sys.stdout)


if __name__ == "__main__":
    main(sys.argv)
