#!/usr/bin/env python3
"""Makes the index of a large store, without the files: to measure queries, not loads.

usage: indexed.py STRATA ROOT [IMAGES [ENTRIES]]

The model: a twentieth of the images are versions of one application. Each image is a base (20 of
them), a runtime on it (60), and two layers of its own; a version has nine tenths of the contents of
the one before it, a tenth is new, and three in a hundred come from a pool that all applications
draw from, so that there are few sets of layers that hold many contents, and many that hold one.

Rows are those of `docs/STORE_FORMAT.md` (`strata` itself makes the empty index). A layer's
directory exists, so that it can be locked, and is empty. The script does not change an existing
store, so the store is made once.
"""
import hashlib
import json
import os
import random
import sqlite3
import subprocess
import sys

BASES, RUNTIMES, VERSIONS, POOL = 20, 60, 20, 5_000


class Index:
    """`index.db` being filled."""

    def __init__(self, root):
        self.root, self.rng = root, random.Random(7)
        self.db = sqlite3.connect(root + "/index.db", isolation_level=None)
        self.db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;"
                              "PRAGMA cache_size=-2000000; BEGIN")
        self.contents = []  # (size, layers that hold it)
        self.layers = 0

    def content(self):
        self.contents.append((int(50 * 400 ** self.rng.random()), []))
        return len(self.contents)

    def layer(self, count, contents):
        """COUNT entries: a directory for each 50, a tenth symlinks, the rest from `contents`."""
        self.layers += 1
        name = hashlib.sha256(b"layer %d" % self.layers).digest()
        os.makedirs("%s/layers/%s/diff" % (self.root, name.hex()))
        dirs = max(count // 50, 1)
        each = (count - dirs) // dirs
        meta = (0o755, 0, 0, 0, 2, 1_600_000_000) + (None,) * 5
        rows = [(self.layers, 1, 1, b"", 1, *meta, 2, dirs, None, None, None)]
        rows += [(self.layers, 2 + n, 1, b"dir-%06d" % n, 1, *meta, 2 + dirs + n * each, each or None,
                  None, n, None) for n in range(dirs)]
        taken, apparent, node = iter(contents), 0, 1 + dirs
        for n in range(dirs):
            for k in range(each):
                node += 1
                mode, size, link, content = 0o644, 12, None, None
                if k % 10 == 5:
                    mode, link = 0o777, b"file-%06d.txt" % (k - 1)
                else:
                    content = next(taken)
                    size, holders = self.contents[content - 1]
                    if not holders or holders[-1] != self.layers:
                        holders.append(self.layers)
                    apparent += size
                rows.append((self.layers, node, 2 + n, b"file-%06d.txt" % k, 2 if link else 0, mode,
                             0, 0, size, None, 1_600_000_000, None, None, link, None, content, None,
                             None, None, node, None))
        self.db.execute("INSERT INTO layers VALUES (?,?,?,?,?,?,?,?,?)", (
            self.layers, name, apparent + 600 * count, 20 * count, len(rows) - 1, apparent,
            (20 * count + 4095) // 4096 * 8, 4096 * (dirs + 2), 8 * (dirs + 2)))
        # Their contents come later.
        self.db.execute("PRAGMA foreign_keys = OFF")
        self.db.executemany("INSERT INTO entries VALUES (%s)" % ",".join("?" * 21), rows)
        return self.layers, "sha256:" + name.hex()

    def fresh(self, count):
        """Contents for a layer of COUNT entries, more than enough."""
        return [self.content() for _ in range(count)]

    def blob(self, value):
        data = json.dumps(value).encode()
        name = hashlib.sha256(data)
        with open("%s/blobs/sha256/%s" % (self.root, name.hexdigest()), "wb") as out:
            out.write(data)
        return name.digest()

    def image(self, tag, layers):
        digests = [name for _, name in layers]
        image = self.blob({
            "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z",
            "config": {"Labels": {"tag": tag}}, "rootfs": {"type": "layers", "diff_ids": digests},
            "history": [{"created_by": "step %d" % n} for n in range(len(layers))]})
        self.db.execute("INSERT INTO images VALUES (?, NULL)", (image,))
        self.db.executemany("INSERT INTO image_layers VALUES (?,?,?)",
                            [(image, at, layer) for at, (layer, _) in enumerate(layers)])
        self.db.execute("INSERT INTO tags VALUES (?,?)", ("docker.io/library/" + tag, image))

    def finish(self):
        """Contents, and which layers hold them."""
        sets, rows = {}, []
        for number, (size, holders) in enumerate(self.contents, 1):
            if holders:
                held = sets.setdefault(tuple(holders), [len(sets) + 1, 0, 0, 0])
                blocks = (size + 4095) // 4096 * 8
                for at, more in ((1, 1), (2, size), (3, blocks)):
                    held[at] += more
                digest = hashlib.sha256(b"content %d" % number).digest()
                rows.append((number, digest, 0, size, blocks, held[0]))
        self.db.executemany("INSERT INTO contents (id, digest, copy, size, blocks, holders)"
                            " VALUES (?,?,?,?,?,?)", rows)
        self.db.executemany("INSERT INTO holders VALUES (?,?,?,?,?)", (
            (number, encoded(layers), *sums) for layers, (number, *sums) in sets.items()))
        self.db.execute("COMMIT")
        self.db.close()
        return len(rows), len(sets)


def encoded(layers):
    """Differences, seven bits a byte, the lowest first."""
    out, before = bytearray(), 0
    for layer in layers:
        step, before = layer - before, layer
        while step >= 0x80:
            out.append(step & 0x7f | 0x80)
            step >>= 7
        out.append(step)
    return bytes(out)


def make(strata, root, images=1_000, entries=5_000_000):
    """Makes the store, unless it exists."""
    told = "%d images, %d entries" % (images, entries)
    if os.path.exists(root + ".made"):
        with open(root + ".made", encoding="ascii") as file:
            if file.read() == told:
                return
        raise SystemExit("%s is another store; remove it and %s.made first" % (root, root))
    # Only what adds makes a store.
    ours = [strata, "--quiet", "--root", root]
    for command in (["import", "-", "empty:1"], ["rmi", "empty:1"]):
        subprocess.run(ours + command, input=bytes(1024), check=True, stdout=subprocess.DEVNULL)
    index = Index(root)
    shared = entries // 5
    base, runtime = max(shared // 2 // BASES, 60), max(shared // 2 // RUNTIMES, 60)
    bases = [index.layer(base, index.fresh(base)) for _ in range(BASES)]
    runtimes = [index.layer(runtime, index.fresh(runtime)) for _ in range(RUNTIMES)]
    own = max((entries - shared) // images, 120)
    pool = index.fresh(POOL)
    for number in range(images):
        application, version = divmod(number, VERSIONS)
        if version == 0:
            kept = [index.content() for _ in range(own)]
        kept = [index.content() if index.rng.random() < 0.1 else old for old in kept]
        held = [index.rng.choice(pool) if index.rng.random() < 0.03 else old for old in kept]
        small = own // 10
        index.image("app%d:%d" % (application, version), [
            bases[application % BASES], runtimes[application % RUNTIMES],
            index.layer(own - small, held[small:]), index.layer(small, held[:small])])
    contents, sets = index.finish()
    print("%s: %d layers, %d contents in %d sets" % (told, index.layers, contents, sets))
    # strata does the rest for images.json.
    subprocess.run([strata, "--root", root, "tag", "app0:0", "app0:first"], check=True)
    with open(root + ".made", "w", encoding="ascii") as file:
        file.write(told)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    make(*sys.argv[1:3], *map(int, sys.argv[3:]))
