#!/usr/bin/env python3
"""Checks `strata df`, `rmi --dry-run` and `reuse`: computes every number a second time.

usage: accounts.py STRATA STORE SEED SOURCE...

STORE holds the images of the SOURCEs and no others (see archives.py). The script computes from
the archives what images and layers hold, and measures their disk usage by lstat(2) and du(1).
Then it removes images in the random order of SEED, one to three at a time; each time it
compares `rmi --dry-run` with its own number and with what du says afterwards.
"""
import collections
import json
import os
import random
import subprocess
import sys

sys.dont_write_bytecode = True  # no __pycache__ in the work tree
import archives
from compared import end, equal


def lstat(*path):
    found = os.lstat(os.path.join(*path))
    return found.st_size, found.st_blocks


def total(spaces):
    """Bytes and blocks added up."""
    spaces = list(spaces)
    return sum(bytes for bytes, _ in spaces), sum(blocks for _, blocks in spaces)


def both(said):
    return said["bytes"], said["blocks"]


def below(*path, files=True, dirs=True):
    """Bytes and blocks of all inodes at and below a path."""
    seen = {}
    path = os.path.join(*path)
    if not os.path.isdir(path):
        return lstat(path) if os.path.lexists(path) else (0, 0)
    for folder, _, names in os.walk(path):
        for name in ([folder] if dirs else []) + ([os.path.join(folder, n) for n in names] if files else []):
            found = os.lstat(name)
            seen[found.st_ino] = found.st_size, found.st_blocks
    return total(seen.values())


def split(sums, order):
    """Divides {holders: [bytes, blocks]}: the remainder goes to the first in `order`."""
    parts = collections.defaultdict(lambda: [0, 0])
    for holders, values in sums.items():
        ranked = sorted(holders, key=order)
        for unit in (0, 1):
            each, rest = divmod(values[unit], len(ranked))
            for rank, holder in enumerate(ranked):
                parts[holder][unit] += each + (rank < rest)
    return parts


class Judge:
    def __init__(self, strata, store, sources):
        self.call, self.store = [strata, "--root", store], store
        self.images, self.layers = archives.read(sources)
        self.blocks = {}
        inodes = {}
        for layer, found in self.layers.items():
            for path, (digest, size, _) in found.items():
                file = os.lstat(os.fsencode(os.path.join(self.dir(layer), "diff")) + b"/"
                                + path.encode("utf-8", "surrogateescape"))
                equal("size of " + path, file.st_size, size)
                equal("inode of " + path, file.st_ino, inodes.setdefault(digest, file.st_ino))
                self.blocks[digest] = file.st_blocks

    def dir(self, layer):
        return os.path.join(self.store, "layers", layer.split(":")[1])

    def run(self, *args):
        return subprocess.run(self.call + list(args), check=True, stdout=subprocess.PIPE).stdout

    def json(self, *args):
        return json.loads(self.run("--format", "json-full", *args))

    def contents(self, layers):
        """{digest: size} of what layers hold."""
        return {digest: size for layer in layers for digest, size, _ in self.layers[layer].values()}

    def apparent(self, layer):
        """Bytes of a layer's files, each inode once."""
        return sum({inode: size for _, size, inode in self.layers[layer].values()}.values())

    def held(self, holders):
        """{digest: the names of its holders}, and the same summed up by names."""
        by = collections.defaultdict(set)
        for name, layers in holders.items():
            for digest in self.contents(layers):
                by[digest].add(name)
        sizes = self.contents(layer for layers in holders.values() for layer in layers)
        sums = collections.defaultdict(lambda: [0, 0])
        for digest, names in by.items():
            sums[frozenset(names)][0] += sizes[digest]
            sums[frozenset(names)][1] += self.blocks[digest]
        return by, sums

    def usage(self, what, said, holders, name, by, parts, apparent, layered):
        """All columns of an image or layer."""
        sizes = self.contents(holders[name])
        own = [digest for digest in sizes if by[digest] == {name}]
        blocks = sum(self.blocks[digest] for digest in sizes)
        unique = sum(self.blocks[digest] for digest in own)
        stored, alone = sum(sizes.values()), sum(sizes[digest] for digest in own)
        for column, number in (
                ("files", len(sizes)), ("apparent", apparent), ("layered", layered),
                ("stored", stored), ("unique", alone), ("shared", stored - alone),
                ("attributed", parts[name][0])):
            equal("%s: %s" % (what, column), said[column], number)
        for column, number in (("stored", blocks), ("unique", unique), ("shared", blocks - unique),
                               ("attributed", parts[name][1])):
            equal("%s: blocks %s" % (what, column), said["blocks"][column], number)

    def df(self):
        """Every number of `df`, on the images that are left."""
        said = self.json("df")
        equal("images", sorted(image["id"] for image in said["images"]), sorted(self.images))
        by, sums = self.held(self.images)
        parts = split(sums, str)
        for image in said["images"]:
            layers = self.images[image["id"]]
            equal("layers of " + image["id"], image["layers"], layers)
            apparent = sum(map(self.apparent, layers))
            self.usage(image["id"], image, self.images, image["id"], by, parts, apparent, apparent)
        there = [layer["diff_id"] for layer in said["layers"]]
        equal("layers", sorted(there), sorted({l for ls in self.images.values() for l in ls}))
        holders = {layer: [layer] for layer in there}
        by, sums = self.held(holders)
        parts = split(sums, there.index)
        stacks = {tuple(layers[:n + 1]) for layers in self.images.values() for n in range(len(layers))}
        for layer in said["layers"]:
            name = layer["diff_id"]
            having = sum(name in layers for layers in self.images.values())
            equal("images with " + name, layer["images"], having)
            on = sum(stack[-1] == name for stack in stacks)
            self.usage(name, layer, holders, name, by, parts, self.apparent(name),
                       self.apparent(name) * on)
            for part, space in self.frame(name).items():
                equal("%s of %s" % (part, name), both(layer[part]), space)
        self.totals(said, stacks)
        self.disk(said["disk"])

    def frame(self, layer):
        return {"headers": lstat(self.dir(layer), "headers.zst"),
                "directories": below(self.dir(layer), files=False)}

    def totals(self, said, stacks):
        everything = self.contents(l for ls in self.images.values() for l in ls)
        by, _ = self.held(self.images)
        stored = sum(everything.values())
        unique = sum(size for digest, size in everything.items() if len(by[digest]) == 1)
        for column, number in (
                ("files", len(everything)), ("stored", stored), ("attributed", stored),
                ("apparent", sum(self.apparent(l) for ls in self.images.values() for l in ls)),
                ("layered", sum(self.apparent(stack[-1]) for stack in stacks)),
                ("unique", unique), ("shared", stored - unique)):
            equal("total " + column, said[column], number)
        equal("sum of attributed", sum(i["attributed"] for i in said["images"]), said["stored"])
        equal("sum of blocks attributed", sum(i["blocks"]["attributed"] for i in said["images"]),
              said["disk"]["contents"]["blocks"])
        equal("no image", said["no_image"]["stored"], 0)

    def disk(self, said):
        """Part by part against lstat, the total against du."""
        layers = [l for l in os.listdir(self.store + "/layers")]
        everything = self.contents(l for ls in self.images.values() for l in ls)
        frames = [self.frame("sha256:" + layer) for layer in layers]
        computed = {
            "contents": (sum(everything.values()), sum(map(self.blocks.get, everything))),
            "headers": total(frame["headers"] for frame in frames),
            "directories": total([frame["directories"] for frame in frames]
                                 + [lstat(self.store, "layers")]),
            **self.derived(), "blobs": below(self.store, "blobs"),
            "uppers": below(self.store, "uppers"), "mounts": below(self.store, "mounts"),
            "leftovers": total([below(self.store, "staging"), below(self.store, "trash")]),
            "images.json": below(self.store, "images.json"),
            "reserve": below(self.store, "reserve"),
            "index.db": below(self.store, "index.db"),
            "root": total([lstat(self.store), below(self.store, "layer-blobs")]),
            "total": (self.du("--apparent-size", "-B1"), self.du("-B512")),
        }
        equal("parts", sorted(said), sorted(computed))
        for part, space in computed.items():
            equal("disk: " + part, both(said[part]), space)

    def derived(self):
        """The compiled trees with their directory, and the kernel's images of names in it."""
        everything = below(self.store, "trees")
        images = total(lstat(self.store, "trees", name)
                       for name in os.listdir(self.store + "/trees") if name.endswith(".erofs"))
        return {"trees": tuple(a - n for a, n in zip(everything, images)), "names": images}

    def du(self, *options):
        return int(subprocess.run(["du", "-s", *options, self.store], check=True,
                                  stdout=subprocess.PIPE).stdout.split()[0])

    def reuse(self):
        """The matrix of what every two images share."""
        said = self.json("reuse")
        names = [image["id"] for image in said["images"]]
        equal("images of reuse", sorted(names), sorted(self.images))
        held = {name: self.contents(self.images[name]) for name in names}
        for a, one in enumerate(names):
            for b, other in enumerate(names):
                shared = {d: s for d, s in held[one].items() if d in held[other]}
                layers = set(self.images[one]) & set(self.images[other])
                lie = self.contents(layers)
                for number, computed in (("layers", len(layers)), ("layer_bytes", sum(lie.values())),
                                         ("layer_files", len(lie)), ("files", len(shared)),
                                         ("bytes", sum(shared.values()))):
                    equal("%s of %s and %s" % (number, one, other), said["matrix"][number][a][b], computed)

    def blobs(self, images):
        """The blobs that only these images have."""
        gone = {}
        for name in os.listdir(self.store + "/blobs/sha256"):
            with open(os.path.join(self.store, "blobs/sha256", name)) as file:
                config = json.load(file).get("config", {})
            owner = config.get("digest") or "sha256:" + name
            if owner in images:
                gone[name] = lstat(self.store, "blobs/sha256", name)
        return total(gone.values())

    def remove(self, chosen):
        """What removing images frees: as strata says, as computed, and as it then is."""
        said = self.json("rmi", "--force", "--dry-run", *chosen)
        left = {name: layers for name, layers in self.images.items() if name not in chosen}
        kept = {layer for layers in left.values() for layer in layers}
        gone = {l for name in chosen for l in self.images[name]} - kept
        contents = self.contents(gone)
        for digest in self.contents(kept):
            contents.pop(digest, None)
        chains = {tuple(self.images[name]) for name in chosen} - set(map(tuple, left.values()))
        derived, listing = self.derived(), lstat(self.store, "images.json")
        frames = [self.frame(layer) for layer in gone]
        computed = {
            "contents": (sum(contents.values()), sum(map(self.blocks.get, contents))),
            "headers": total(frame["headers"] for frame in frames),
            "directories": total(frame["directories"] for frame in frames),
            "blobs": self.blobs(chosen),
        }
        equal("images that would go", sorted(said["images"]), sorted(chosen))
        equal("layers that would go", sorted(said["layers"]), sorted(gone))
        equal("contents that would go", said["files"], len(contents))
        equal("in use", said["in_use"], [])
        before = self.du("--apparent-size", "-B1"), self.du("-B512")
        index = below(self.store, "index.db")
        self.run("rmi", "--force", *chosen)
        # index.db keeps its pages, and is left out.
        grown = tuple(a - b for a, b in zip(below(self.store, "index.db"), index))
        after = self.du("--apparent-size", "-B1"), self.du("-B512")
        freed = tuple(b - a + g for b, a, g in zip(before, after, grown))
        less = lambda now, then: tuple(a - b for a, b in zip(then, now))
        computed.update((part, less(now, derived[part])) for part, now in self.derived().items())
        computed["images.json"] = less(lstat(self.store, "images.json"), listing)
        computed["total"] = freed
        equal("parts that would go", sorted(said["freed"]), sorted(computed))
        for part, space in computed.items():
            equal("freed: " + part, both(said["freed"][part]), space)
        self.images = left
        equal("trees that went", len(chains) >= 1 or computed["trees"] == (0, 0), True)
        return freed


def main():
    strata, store, seed, *sources = sys.argv[1:]
    judge, rng = Judge(strata, store, sources), random.Random(seed)
    for image in judge.images:
        judge.run("ls", image + ":/")  # its tree is compiled
    judge.df()
    judge.reuse()
    names = sum(len(files) for files in judge.layers.values())
    print("%d images, %d layers, %d names of %d contents" % (
        len(judge.images), len(judge.layers), names, len(judge.blocks)))
    left = sorted(judge.images)
    rng.shuffle(left)
    while left:
        n = rng.randint(1, 3)
        chosen, left = left[:n], left[n:]
        freed = judge.remove(chosen)
        print("removed %d images: du fell by %d bytes, %d blocks" % ((len(chosen),) + freed))
        judge.df()
    end()


main()
