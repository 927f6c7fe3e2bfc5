"""Part `growth`: cost against size.

The model: each section varies one number and keeps the rest: entries of one image, layers of one
image, entries of one directory, names of one content, images in the store. Inputs are generated,
loaded once for each size into a new store, and removed. `tar` (GNU tar of the same layers, one
after the other) is measured with each load, to distinguish the cost of making files from the cost
of strata; mounts and listings are measured beside the kernel's overlayfs where it can hold the
same input. Small figures are medians of several runs; loads of more than 20,000 entries run once.

In `store` each image has two shared layers and one of its own, nine tenths of whose files other
images have too, under other names. Loading a thousand of those would take much longer than a
section may, so the largest store is an index without files.
"""
import os
import random
import shutil

import generate
import indexed
from inputs import Image
from importing import Import
from measure import forget_deleted, interleave, read_all, run, sample, settle, summary
from peers import Mount, unmount, unpack_layer

SIZES = {  # section: (full, quick)
    "entries": ([1_000, 10_000, 100_000, 1_000_000], [1_000, 10_000]),
    "layers": ([1, 10, 100, 500], [1, 10, 50]),
    "width": ([10, 1_000, 100_000, 1_000_000], [10, 1_000, 10_000]),
    "links": ([1_000, 70_000, 200_000], [1_000, 5_000]),
    "store": ([1, 10, 100], [1, 10, 30]),
}
# The largest store is an index alone (indexed.py), made once and kept: images and entries.
INDEXED = (1_000, 5_000_000), (100, 50_000)


def measure(bench, part, work, sections):
    """Runs the given sections."""
    part.absent("growth, other peers", "the import part compares them; here the shape counts")
    for section in sections:
        sizes = SIZES[section][1 if bench.quick else 0]
        if section == "store":
            store(bench, part, work, sizes)
        else:
            for size in sizes:
                grow(bench, part, os.path.join(work, "%s-%d" % (section, size)), section, size)


def layers_of(section, size):
    """The layers of an image, as streams of members."""
    small = (20, 200)
    if section == "entries":
        return [generate.tree(1, size, size=small)]
    if section == "layers":
        each = 5_000 // size
        return [generate.tree(n, max(each, 8), size=small, root="t%d" % (n % 10))
                for n in range(size)]
    if section == "width":
        return [wide(size, lambda n: b"%d" % n)]
    return [wide(size, lambda n: b"one content, many names")]


def wide(size, content):
    """One directory with SIZE files."""
    yield generate.header("wide/", b"5", mode=0o755)
    for n in range(size):
        yield generate.file("wide/file-%d" % n, content(n))


def grow(bench, part, work, section, size):
    """All figures for one size."""
    os.makedirs(work)
    made = generate.Layout(work + "/oci")
    made.images({"latest": [made.layer(members) for members in layers_of(section, size)]})
    image, ways = Image("grown", work + "/oci"), Import(bench, work)
    read_all(image.gzip)
    given = str(size)
    entries = size if section != "layers" else 5_000
    repeat = bench.repeat if entries <= 20_000 else 1
    stores = {}

    def load(peer):
        stores[peer] = ways.fresh()
        forget_deleted(image.gzip, bench.strata)
        return getattr(ways, peer)(stores[peer], image, "gzip")
    got, failed = interleave(repeat, {p: lambda p=p: load(p) for p in ("tar", "strata")})
    part.row(section, "load", got, failed, "", given, repeat=repeat)
    root = stores["strata"] + "/store"
    rows_for_mounts(bench, part, work, section, given, root, image)
    df = os.path.getsize(root + "/index.db")
    trees = sum(file.stat().st_size for file in os.scandir(root + "/trees"))
    for what, size_of in (("index", df), ("tree", trees)):
        # With fewer, the size would be that of the empty file.
        name, value = (what + ", bytes per entry", size_of / entries) if entries >= 1000 else \
            (what + ", bytes", size_of)
        part.row(section, name, {"strata": summary([{"value": value}])}, {}, "", given,
                 unit="bytes")
    shutil.rmtree(work)


def rows_for_mounts(bench, part, work, section, given, root, image):
    """Mount, lookup and listing, beside overlayfs where it can."""
    reference = run(bench.strata, "--root", root, "images", "-q", "--no-trunc").split()[0]
    lowers = [os.path.join(work, "lowers", str(n)) for n in range(len(image.layers(image.gzip)))]
    os.makedirs(work + "/lowers/empty")
    for path, layer in zip(lowers, image.layers(image.gzip)):
        unpack_layer(layer, path)
    # It requires two lowers, and takes 500 at most.
    more = [work + "/lowers/empty"] if len(lowers) == 1 else []
    names = [os.path.relpath(path, work + "/lowers") for path in more + lowers]
    # Relative names: the options of mount(2) have to fit into one page.
    overlay = ["sh", "-c", 'cd "$1" && exec mount -t overlay overlay -o "lowerdir=$2" "$3"', "sh",
               work + "/lowers", ":".join(reversed(names))]
    commands = {"strata": [bench.strata, "--root", root, "mount", "--backend", "fuse", reference],
                "overlayfs": overlay}
    paths, dirs = sampled(lowers)
    listing, where = work + "/list", work + "/mnt"
    os.makedirs(where)
    with open(listing, "w", encoding="ascii") as file:
        file.writelines(path + "\n" for path in paths)

    def mounted(peer, act):
        def case():
            mount = Mount([*commands[peer], where], where, peer == "strata")
            try:
                return act(mount)
            finally:
                mount.end()
        return case

    def timed_mount(peer, first):
        def case():
            if first:
                shutil.rmtree(root + "/trees")
                os.mkdir(root + "/trees", 0o700)
            settle()
            got = sample(["sh", "-c", '"$@" 2> /dev/null', "sh", *commands[peer], where])
            unmount(where)
            return got
        return case
    repeat = bench.repeat
    for state, first in (("first", True), ("cached", False)):
        got, failed = interleave(1 if first else repeat, {
            p: timed_mount(p, first and p == "strata") for p in commands})
        part.row(section, "mount", got, failed, state, given, repeat=repeat)
    works = {"%d lookups" % len(paths): lambda m: sample([bench.client, "stat", listing],
                                                       cwd=m.target),
             "ls of the widest": lambda m: sample(["ls", "-U", dirs], cwd=m.target)}
    for work_name, act in works.items():
        got, failed = interleave(repeat, {p: mounted(p, act) for p in commands})
        part.row(section, work_name, got, failed, "fresh", given, repeat=repeat)

    def memory(kind):
        def act(mount):
            sample(["find", ".", "-ls"], cwd=mount.target)
            return {"value": mount.memory()[kind]}
        return act
    for work_name, kind in (("resident memory", 0), ("anonymous memory", 1)):
        got, failed = interleave(1, {"strata": mounted("strata", memory(kind))})
        part.row(section, work_name, got, failed, "after find -ls", given, unit="kB")


def sampled(lowers):
    """Up to 1,000 paths, drawn from all over, and the directory with the most entries."""
    rng, paths, widest = random.Random(3), set(), (0, ".")
    for lower in lowers:
        for folder, dirs, names in os.walk(lower):
            here = os.path.relpath(folder, lower)
            widest = max(widest, (len(names) + len(dirs), here))
            paths.update(os.path.join(here, name) for name in names)
    paths = sorted(paths)
    return rng.sample(paths, min(1_000, len(paths))), widest[1]


def store(bench, part, work, sizes):
    """Images in one store."""
    entries = 300 if bench.quick else 5_000
    pool = [generate.text(random.Random(n), 50 + n * 37 % 3_000) for n in range(20_000)]
    made = generate.Layout(work + "/oci")
    shared = [made.layer(generate.tree("base%d" % n, entries, pool=pool, root="base"))
              for n in range(2)]
    root, there = work + "/store", 0
    where = work + "/mnt"
    os.makedirs(where)
    for size in sizes:
        tags = {}
        for n in range(there, size):
            own = generate.tree(n, entries, size=(50, 3_000), pool=pool, changed=0.1,
                                root="app%d" % n)
            tags["app%d" % n] = [*shared, made.layer(own)]
        made.images(tags)
        forget_deleted(work + "/oci", bench.strata)
        loaded = sample([bench.strata, "--root", root, "load", "-q", "-i", work + "/oci"])
        loaded["value"] /= size - there
        for layers in tags.values():
            os.unlink(os.path.join(work, "oci/blobs/sha256", layers[-1]["digest"][7:]))
        there = size
        given = str(size)
        part.row("store", "load, each image", {"strata": summary([loaded])}, {}, "", given)
        questions(bench, part, root, where, given)
        index = os.path.getsize(root + "/index.db") / (entries * (size + 2))
        part.row("store", "index, bytes per entry", {"strata": summary([{"value": index}])}, {},
                 "", given, unit="bytes")
    images, all_entries = INDEXED[1 if bench.quick else 0]
    root = os.path.join(bench.directory, "indexed-%d" % images)
    indexed.make(bench.strata, root, images, all_entries)
    questions(bench, part, root, where, str(images))
    index = os.path.getsize(root + "/index.db") / all_entries
    part.row("store", "index, bytes per entry", {"strata": summary([{"value": index}])}, {}, "",
             str(images), unit="bytes")


def questions(bench, part, root, where, given):
    """The queries on a store, and a mount of one image."""
    call = [bench.strata, "--root", root]
    reference = run(*call, "images", "-q", "--no-trunc").split()[0]
    for name, command in {"images": ["images"], "df": ["df"], "reuse": ["reuse"],
                          "rmi --dry-run": ["rmi", "--force", "--dry-run", reference],
                          "ls of the root": ["ls", reference + ":/"]}.items():
        got, failed = interleave(bench.repeat, {"strata": lambda c=command: sample(call + c)})
        part.row("store", name, got, failed, "", given, repeat=bench.repeat)

    def mounts():
        got = sample(["sh", "-c", '"$@" 2> /dev/null', "sh", *call, "mount", "--backend", "fuse",
                      reference, where])
        unmount(where)
        return got
    got, failed = interleave(bench.repeat, {"strata": mounts})
    part.row("store", "mount", got, failed, "cached", given, repeat=bench.repeat)
