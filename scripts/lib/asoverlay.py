#!/usr/bin/env python3
"""Compares what strata-overlay shows of an upper with what the kernel's overlayfs shows of it.

usage: asoverlay.py UPPER LOWER TREE

TREE is the output of treesum.py for strata-overlay's mount. overlayfs is mounted read-only, so
that it changes nothing; the mountpoint `kernel` is made in the current directory, its work
directory beside the upper. Devices 0:0 are left out: overlayfs shows the file that represents
one, for only strata knows such devices.
"""
import json
import os
import subprocess
import sys

LIB = os.path.dirname(os.path.abspath(__file__))


def read(text):
    return {entry["path"]: entry for entry in map(json.loads, text.splitlines())}


def kernel_tree(upper, lower):
    work = os.path.join(os.path.dirname(upper), "kernelwork")
    for path in ("kernel", work):
        os.makedirs(path, exist_ok=True)
    options = "ro,lowerdir=%s,upperdir=%s,workdir=%s" % (lower, upper, work)
    options += ",redirect_dir=on,metacopy=on,index=off"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, "kernel"], check=True)
    try:
        tree = subprocess.run(
            [sys.executable, LIB + "/treesum.py", "--ignore-xattr", "trusted.overlay.", "kernel"],
            check=True, stdout=subprocess.PIPE, text=True)
    finally:
        subprocess.run(["umount", "kernel"], check=True)
    return read(tree.stdout)


def differences(upper, lower, text):
    """Lines with the differences; none if all is the same."""
    ours, theirs = read(text), kernel_tree(upper, lower)
    for path in [path for path, entry in ours.items() if entry.get("rdev") == "0:0"]:
        del ours[path]
        theirs.pop(path, None)
    line = "%s\n  strata-overlay %s\n  overlayfs      %s"
    return [line % (path, ours.get(path), theirs.get(path))
            for path in sorted({*ours, *theirs}) if ours.get(path) != theirs.get(path)]


if __name__ == "__main__":
    with open(sys.argv[3], encoding="utf-8") as tree:
        found = differences(sys.argv[1], sys.argv[2], tree.read())
    if found:
        print("%d entries differ from overlayfs" % len(found), *found[:5], sep="\n",
              file=sys.stderr)
        sys.exit(1)
