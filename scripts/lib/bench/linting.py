#!/usr/bin/env python3
"""Compares the time of `strata lint` with that of reading the same archive.

usage: linting.py STRATA CORPUS DIRECTORY [REPEAT]

The model: one image has the layers of all images of the corpus, as many as make 500 MB. It is a docker
archive with plain layers, and an OCI archive with gzip layers, and each is in the page cache. Peers
run in turns. `cat` reads the archive; `tar tf` lists what the layers hold, as lint does. No program knows a gzip layer
without inflating it, so for the OCI archive `gzip -dc` is the reading.

Every line has its ratio to lint. The exit status is 1 if lint takes more than 1.2 of `cat` of the
plain archive, or of `gzip -dc` of the other.
"""
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile

import measure

ENOUGH, BOUND = 500_000_000, 1.2


def layers_of(corpus, most):
    """(diff id, gzip blob) of distinct layers, until `most(blob)` adds up to ENOUGH."""
    found, total = {}, 0
    for name in sorted(os.listdir(corpus + "/oci")):
        def blob(digest, layout=os.path.join(corpus, "oci", name)):
            return os.path.join(layout, "blobs/sha256", digest.split(":")[1])

        def document(digest):
            with open(blob(digest), encoding="utf-8") as file:
                return json.load(file)
        with open(os.path.join(corpus, "oci", name, "index.json"), encoding="utf-8") as file:
            manifest = document(json.load(file)["manifests"][0]["digest"])
        if any(not layer["mediaType"].endswith("gzip") for layer in manifest["layers"]):
            continue
        ids = document(manifest["config"]["digest"])["rootfs"]["diff_ids"]
        for diff_id, layer in zip(ids, manifest["layers"]):
            if diff_id not in found and total < ENOUGH:
                found[diff_id] = blob(layer["digest"])
                total += most(found[diff_id])
    return found


def inflated_size(blob):
    """Bytes of a gzip blob, uncompressed."""
    with subprocess.Popen(["gzip", "-dc", blob], stdout=subprocess.PIPE) as child:
        return sum(len(chunk) for chunk in iter(lambda: child.stdout.read(1 << 20), b""))


def config(ids):
    """The config of an image."""
    return json.dumps({"architecture": "amd64", "os": "linux", "config": {},
                       "rootfs": {"type": "layers", "diff_ids": list(ids)}}).encode()


def add(archive, name, data):
    """Adds a member of bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def docker_archive(path, layers):
    """Writes a docker archive with plain layers; [(offset, size)] of their tars."""
    places = []
    with tarfile.open(path, "w") as archive:
        image = config(layers)
        add(archive, "config.json", image)
        add(archive, "manifest.json", json.dumps([{
            "Config": "config.json", "RepoTags": ["lint.test/all:1"],
            "Layers": [digest.split(":")[1] + ".tar" for digest in layers]}]).encode())
        for digest, blob in layers.items():
            plain = path + ".layer"
            with open(plain, "wb") as out:
                subprocess.run(["gzip", "-dc", blob], stdout=out, check=True)
            archive.add(plain, digest.split(":")[1] + ".tar")
            size = os.path.getsize(plain)
            places.append((archive.offset - (size + 511) // 512 * 512, size))
            os.unlink(plain)
    return places


def oci_archive(path, layers):
    """Writes an OCI archive with gzip layers."""
    def named(data):
        digest = hashlib.sha256(data).hexdigest()
        add(archive, "blobs/sha256/" + digest, data)
        return {"digest": "sha256:" + digest, "size": len(data)}
    with tarfile.open(path, "w") as archive:
        add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        described = []
        for blob in layers.values():
            archive.add(blob, "blobs/sha256/" + os.path.basename(blob))
            described.append({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                              "digest": "sha256:" + os.path.basename(blob),
                              "size": os.path.getsize(blob)})
        kind = "application/vnd.oci.image."
        manifest = named(json.dumps({
            "schemaVersion": 2, "mediaType": kind + "manifest.v1+json", "layers": described,
            "config": {"mediaType": kind + "config.v1+json", **named(config(layers))}}).encode())
        add(archive, "index.json", json.dumps({
            "schemaVersion": 2,
            "manifests": [{"mediaType": kind + "manifest.v1+json", **manifest}]}).encode())


def compare(title, cases, repeat):
    """Runs the cases in turns and prints them beside lint; {peer: the ratio of lint to it}."""
    got, failed = measure.interleave(repeat, {
        peer: lambda argv=argv: measure.sample(argv) for peer, argv in cases.items()})
    print(title)
    mine = got["strata lint"]["median"]
    for peer, seen in got.items():
        print("  %-34s %7.3f s  %7.3f s CPU   lint takes %.2f of it" % (
            peer, seen["median"], seen["cpu"], mine / seen["median"]))
    for peer, why in failed.items():
        print("  %-34s failed: %s" % (peer, why))
    return {peer: mine / seen["median"] for peer, seen in got.items()}


def main(strata, corpus, directory, repeat=7):
    os.makedirs(directory, exist_ok=True)
    lint = [strata, "-q", "--root", os.path.join(directory, "none"), "lint", "--fail-on", "never"]
    within = []

    plain = os.path.join(directory, "lint.docker.tar")
    places = docker_archive(plain, layers_of(corpus, inflated_size))
    listing = "; ".join("tail -c +%d %s | head -c %d | tar t" % (at + 1, plain, size)
                        for at, size in places)
    measure.read_all(plain)
    ratios = compare("docker archive, %d plain layers, %d MB" % (
        len(places), os.path.getsize(plain) // 1_000_000), {
            "strata lint": [*lint, plain],
            "strata lint --verify": [*lint, "--verify", plain],
            "cat": ["sh", "-c", "cat < %s > /dev/null" % plain],
            "sha256sum": ["sha256sum", plain],
            "tar tf, the archive alone": ["tar", "tf", plain],
            "tar t of each layer": ["sh", "-c", listing]}, repeat)
    within.append(ratios["cat"] <= BOUND)
    os.unlink(plain)

    packed, layers = os.path.join(directory, "lint.oci.tar"), layers_of(corpus, os.path.getsize)
    oci_archive(packed, layers)
    measure.read_all(packed)
    each = "; ".join("gzip -dc %s" % blob for blob in layers.values())
    ratios = compare("OCI archive, %d gzip layers, %d MB" % (
        len(layers), os.path.getsize(packed) // 1_000_000), {
            "strata lint": [*lint, packed],
            "strata lint --verify": [*lint, "--verify", packed],
            "cat": ["sh", "-c", "cat < %s > /dev/null" % packed],
            "gzip -dc of each layer": ["sh", "-c", "{ %s; } > /dev/null" % each],
            "tar tz of each layer": ["sh", "-c", each.replace("gzip -dc", "tar tzf")]},
                     max(repeat // 2, 1))
    within.append(ratios["gzip -dc of each layer"] <= BOUND)
    os.unlink(packed)
    return 0 if all(within) else 1


if __name__ == "__main__":
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    sys.exit(main(*sys.argv[1:4], *map(int, sys.argv[4:])))
