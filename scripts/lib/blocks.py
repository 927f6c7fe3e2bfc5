#!/usr/bin/env python3
"""Checks the levels of `strata reuse --chunks` and `--dry-run`, with tarfile and hashlib alone.

usage: blocks.py STRATA STORE SOURCE...

strata surveys the SOURCEs (see archives.py) before they are loaded into STORE, a new one, and
after, and measures the store itself, too. The script computes from the archives the sizes with no
sharing, with shared layers, with shared files and with shared blocks of 4 KiB.
"""
import hashlib
import io
import json
import subprocess
import sys
import tarfile

sys.dont_write_bytecode = True  # no __pycache__ in the work tree
import archives
from compared import end, equal
from imagefacts import Padded

BLOCK = 4096


def strata(program, store, *arguments):
    command = [program, "--root", store, "-q", "--format", "json-full", *arguments]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return json.loads(out) if "reuse" in arguments else None


def cut(sources, wanted):
    """Blocks of the contents in `wanted`: all, and {hash: bytes} of the different ones."""
    seen, pieces, distinct = set(), 0, {}
    for path in sources:
        source = archives.Source(path)
        blobs = {blob for _, blobs in source.images() for blob in blobs}
        for blob in sorted(blobs):
            stream = io.BufferedReader(Padded(archives.decompressed(source.open(blob))))
            with tarfile.open(fileobj=stream, mode="r|", errors="surrogateescape") as tar:
                for info in tar:
                    tar.members = []
                    if not info.isreg():
                        continue
                    body, whole, blocks = tar.extractfile(info), hashlib.sha256(), []
                    while block := body.read(BLOCK):
                        whole.update(block)
                        blocks.append((hashlib.sha256(block).digest(), len(block)))
                    digest = whole.hexdigest()
                    if digest in wanted and digest not in seen:
                        seen.add(digest)
                        pieces += len(blocks)
                        distinct.update(blocks)
    equal("contents found again", len(seen), len(wanted))
    return pieces, distinct


def computed(sources):
    """The levels as `strata reuse` prints them."""
    images, layers = archives.read(sources)
    apparent = {}
    contents = {}
    for layer, paths in layers.items():
        inodes = {inode: size for _, size, inode in paths.values()}
        apparent[layer] = sum(inodes.values())
        contents.update((digest, size) for digest, size, _ in paths.values())
    stacks = {tuple(of[:n]) for of in images.values() for n in range(1, len(of) + 1)}
    pieces, distinct = cut(sources, contents)
    return {
        "none": {"bytes": sum(apparent[layer] for of in images.values() for layer in of)},
        "layers": {"bytes": sum(apparent[stack[-1]] for stack in stacks)},
        "files": {"bytes": sum(contents.values()), "files": len(contents)},
        "blocks": {"size": BLOCK, "pieces": pieces, "distinct": len(distinct),
                   "bytes": sum(distinct.values())},
    }, len(layers)


def compare(what, said, levels):
    for level, numbers in levels.items():
        for number, value in numbers.items():
            equal("%s: %s of %s" % (what, number, level), said["levels"][level][number], value)
    for chunks in said["levels"]["chunks"]:
        name = "%s: chunks of %d: " % (what, chunks["mean"])
        equal(name + "no more than the files", chunks["bytes"] <= levels["files"]["bytes"], True)
        # Every chunk but the last of a file has the minimum size, and none exceeds the maximum.
        least = (levels["files"]["bytes"] + chunks["most"] - 1) // chunks["most"]
        most = levels["files"]["bytes"] // chunks["least"] + levels["files"]["files"]
        equal(name + "their number", least <= chunks["pieces"] <= most, True)


def main():
    program, store, *sources = sys.argv[1:]
    levels, layers = computed(sources)
    files = {number: levels["files"][number] for number in ("files", "bytes")}
    nothing = {"layers": 0, "files": 0, "bytes": 0}
    ask = ["reuse", "--chunks", "--no-compression"]

    said = strata(program, store, *ask, "--dry-run", *sources)
    compare("surveyed", said, levels)
    equal("a store that is not there", "store" in said, False)
    for source in sources:
        strata(program, store, "load", "-i", source)
    said = strata(program, store, *ask, "--dry-run", *sources)
    compare("surveyed again", said, levels)
    equal("known", said["store"]["known"], {"layers": layers, **files})
    equal("new", said["store"]["new"], nothing)
    compare("stored", strata(program, store, *ask), levels)
    end()


main()
