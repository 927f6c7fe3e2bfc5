#!/usr/bin/env python3
"""Counts the distinct file contents of OCI layouts, with tarfile and hashlib alone.

usage: distinct.py LAYOUT...

Prints a JSON object: `contents` and `bytes` of the distinct contents that the layers
leave on disk, `names` and `name_bytes` of all regular files. A layer is counted once.
A member that a later member of the same layer replaces leaves nothing.
"""
import hashlib
import io
import json
import os
import sys
import tarfile

sys.dont_write_bytecode = True  # no __pycache__ in the work tree
from imagefacts import Padded, layer_stream


def clean(path):
    """The path below the root, `.` and `..` resolved without leaving it."""
    parts = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def layers(layout):
    def read(digest):
        with open(os.path.join(layout, "blobs", *digest.split(":"))) as file:
            return json.load(file)
    with open(os.path.join(layout, "index.json")) as file:
        for image in json.load(file)["manifests"]:
            manifest = read(image["digest"])
            diff_ids = read(manifest["config"]["digest"])["rootfs"]["diff_ids"]
            for diff_id, layer in zip(diff_ids, manifest["layers"]):
                yield diff_id, os.path.join(layout, "blobs", *layer["digest"].split(":"))


def files(blob):
    """The (digest, size) of every path of a layer that is a regular file."""
    found, above = {}, {}
    stream = io.BufferedReader(Padded(layer_stream(blob)))
    with tarfile.open(fileobj=stream, mode="r|", encoding="utf-8", errors="surrogateescape") as tar:
        for info in tar:
            tar.members = []
            path = clean(info.name)
            if os.path.basename(path).startswith(".wh."):
                continue
            if not info.isdir() and path in above:
                for name in [n for n in found if n.startswith(path + "/")]:
                    del found[name]
            found.pop(path, None)
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
                found[path] = (digest.hexdigest(), info.size)
            elif info.islnk() and clean(info.linkname) in found:
                found[path] = found[clean(info.linkname)]
    return found


def main():
    seen, contents, names, name_bytes = set(), {}, 0, 0
    for layout in sys.argv[1:]:
        for diff_id, blob in layers(layout):
            if diff_id in seen:
                continue
            seen.add(diff_id)
            for digest, size in files(blob).values():
                contents[digest] = size
                names, name_bytes = names + 1, name_bytes + size
    print(json.dumps({"contents": len(contents), "bytes": sum(contents.values()),
                      "names": names, "name_bytes": name_bytes}))


main()
