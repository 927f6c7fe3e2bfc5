"""Compares the store that the workers have left with one that a single process has filled.

The model: of a store are compared its images with their ids, the layers with every file in them,
and which of those files are one inode; `blobs/` has the documents of the images and nothing else.
The compiled trees are made when they are needed, so they may be there or not; what the index
takes depends on its past.
"""
import collections
import hashlib
import io
import json
import os
import subprocess
import tarfile


def strata(program, store, *words):
    done = subprocess.run([program, "--root", store, *words], capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError("%s of %s: %s" % (" ".join(words), store, done.stderr.decode()))
    return done.stdout


def images(program, store):
    """The id of each name; every document that the images have."""
    rows = json.loads(strata(program, store, "images", "--format", "json-full"))
    documents = {row[key] for row in rows for key in ("id", "manifest")} - {None}
    return {"%(repository)s:%(tag)s" % row: row["id"] for row in rows}, documents


def files_of(archive):
    """{path: bytes} of the files in a tar."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {info.name.removeprefix("./"): tar.extractfile(info).read()
                for info in tar if info.isreg()}


def files(store):
    """{path: digest} of all files, and the sets of paths that are one inode."""
    seen, inodes = {}, collections.defaultdict(set)
    for top in ("layers", "staging", "trash", "uppers"):
        for where, _, names in os.walk(os.path.join(store, top)):
            for name in names:
                path = os.path.join(where, name)
                with open(path, "rb") as file:
                    digest = hashlib.sha256(file.read()).hexdigest()
                seen[os.path.relpath(path, store)] = digest
                inodes[os.lstat(path).st_ino].add(os.path.relpath(path, store))
    return seen, {frozenset(paths) for paths in inodes.values()}


def compare(program, work, names):
    store, serial = work + "/store", work + "/serial"
    # Images whose name another one has got.
    strata(program, store, "image", "prune", "--force")
    strata(program, store, "-q", "gc")
    strata(program, store, "-q", "fsck")
    ids, documents = images(program, store)
    blobs = {"sha256:" + name for name in os.listdir(store + "/blobs/sha256")}
    assert blobs == documents, "blobs %s" % (blobs ^ documents)
    assert set(ids) == set(names), "names %s" % (set(ids) ^ set(names))
    for name, tree in names.items():
        seen = files_of(strata(program, store, "-q", "export", name))
        assert seen == tree, "%s has another tree" % name
    for name in sorted(names):
        saved = strata(program, store, "-q", "save", name)
        subprocess.run([program, "--root", serial, "-q", "load"], input=saved, check=True,
                       stdout=subprocess.DEVNULL)
    assert images(program, serial)[0] == ids, "images have other ids"
    seen, expected = files(store), files(serial)
    for path in sorted(set(seen[0]) ^ set(expected[0])):
        raise AssertionError("%s is in one store alone" % path)
    for path, digest in seen[0].items():
        assert digest == expected[0][path], "%s has other bytes" % path
    links = seen[1] ^ expected[1]
    assert not links, "other links: %s" % sorted(map(sorted, links))[:2]
