# An unpacker of OCI layouts in plain Python, as somebody else would write one: unpack.py LAYOUT OUT
#
# Removals are applied before a layer's members. With `--naive` members go wherever their paths
# lead; without it, members whose parent is a symlink or that leave the root are refused.
import gzip, json, os, shutil, sys, tarfile

naive = sys.argv[1] == "--naive"
layout, out = sys.argv[-2:]
os.umask(0)


def blob(descriptor):
    algorithm, digest = descriptor["digest"].split(":")
    with open(os.path.join(layout, "blobs", algorithm, digest), "rb") as file:
        return file.read()


def remove(path):
    if os.path.islink(path) or os.path.isfile(path):
        os.remove(path)
    elif os.path.isdir(path):
        shutil.rmtree(path)


def place(name):
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if naive:
        return os.path.join(out, *parts)
    if ".." in parts:
        sys.exit(name + " leaves the root")
    at = out
    for part in parts[:-1]:
        at = os.path.join(at, part)
        if os.path.islink(at):
            sys.exit(name + " goes through a link")
    return os.path.join(out, *parts)


def apply(tar):
    members = list(tar)
    for member in members:
        dir, base = os.path.split(place(member.name))
        if base == ".wh..wh..opq" and os.path.isdir(dir):
            for name in os.listdir(dir):
                remove(os.path.join(dir, name))
        elif base.startswith(".wh.") and base not in (".wh.", ".wh..", ".wh..."):
            remove(os.path.join(dir, base[4:]))
    for member in members:
        path = place(member.name)
        if os.path.basename(path).startswith(".wh."):
            continue
        if not member.isdir() or os.path.islink(path):
            remove(path)
        if member.islnk() and not naive:
            place(member.linkname)
        tar.extract(member, out, numeric_owner=True)
    for member in reversed([member for member in members if member.isdir()]):
        os.utime(place(member.name), (member.mtime, member.mtime))


with open(os.path.join(layout, "index.json")) as file:
    manifest = json.loads(blob(json.load(file)["manifests"][0]))
for layer in manifest["layers"]:
    with open(os.path.join(layout, "..", "layer"), "w+b") as file:
        data = blob(layer)
        file.write(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
        file.seek(0)
        apply(tarfile.open(fileobj=file, mode="r:"))
