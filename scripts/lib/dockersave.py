#!/usr/bin/env python3
"""Makes an archive in the format of `docker save` from an OCI layout.

usage: dockersave.py --style new|old OUT.tar REF=OCIDIR:TAG [REF=OCIDIR:TAG ...]

  new   docker 25 and later: an OCI layout (index.json with the name
        annotations of containerd) that also holds a manifest.json whose paths
        point at blobs/sha256/.
  old   before docker 25: a directory per layer (VERSION, json, layer.tar),
        `repositories`, manifest.json. A layer that was already written is a
        symlink to the first copy.

Several REFs for one OCIDIR:TAG are several tags of one image. Both styles hold
layers uncompressed, as docker does with its own (non-containerd) store.

So making test input does not need the docker engine; the two layouts
are small. They follow `image/tarexport/save.go` of moby 24 and 25.
"""
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Layout:
    """Reads one image of an OCI layout directory."""

    def __init__(self, path, tag):
        self.path = path
        with open(os.path.join(path, "index.json")) as f:
            index = json.load(f)
        for desc in index["manifests"]:
            name = desc.get("annotations", {}).get("org.opencontainers.image.ref.name")
            if name == tag:
                break
        else:
            raise SystemExit(f"dockersave: {path} holds no tag {tag}")
        self.manifest = json.loads(self.blob(desc["digest"]))
        self.config_raw = self.blob(self.manifest["config"]["digest"])
        self.config = json.loads(self.config_raw)

    def blob(self, digest):
        algorithm, value = digest.split(":")
        with open(os.path.join(self.path, "blobs", algorithm, value), "rb") as f:
            return f.read()

    def diffs(self):
        """The uncompressed layers, lowest first, with their diff ids."""
        for desc, diff_id in zip(self.manifest["layers"], self.config["rootfs"]["diff_ids"]):
            data = self.blob(desc["digest"])
            if data[:2] == b"\x1f\x8b":
                data = gzip.decompress(data)
            elif data[:4] == b"\x28\xb5\x2f\xfd":
                data = subprocess.run(["zstd", "-dc"], input=data, stdout=subprocess.PIPE, check=True).stdout
            if "sha256:" + sha256(data) != diff_id:
                raise SystemExit(f"dockersave: layer is not {diff_id}")
            yield diff_id.split(":")[1], data


class Out:
    """A tar whose entries have the order of docker's own walk."""

    def __init__(self, path):
        self.path = path
        self.entries = {}

    def file(self, name, data):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        info.mode = 0o644
        self.entries.setdefault(name, (info, data))

    def directory(self, name):
        info = tarfile.TarInfo(name)
        info.type = tarfile.DIRTYPE
        info.mode = 0o755
        self.entries.setdefault(name, (info, None))

    def symlink(self, name, target):
        info = tarfile.TarInfo(name)
        info.type = tarfile.SYMTYPE
        info.linkname = target
        info.mode = 0o777
        self.entries.setdefault(name, (info, None))

    def close(self):
        with tarfile.open(self.path, "w", format=tarfile.PAX_FORMAT) as tar:
            for name in sorted(self.entries):
                info, data = self.entries[name]
                tar.addfile(info, io.BytesIO(data) if data is not None else None)


def dumps(value):
    return json.dumps(value, separators=(",", ":")).encode()


def split_ref(ref):
    """NAME:TAG -> (NAME, TAG); a colon before the last slash is a port."""
    name, colon, tag = ref.rpartition(":")
    if not colon or "/" in tag:
        return ref, "latest"
    return name, tag


def full_name(ref):
    """The name as containerd writes it: always with a registry and a tag."""
    name, tag = split_ref(ref)
    first = name.split("/")[0]
    if "/" not in name:
        name = "docker.io/library/" + name
    elif "." not in first and ":" not in first and first != "localhost":
        name = "docker.io/" + name
    return name + ":" + tag


def legacy_chain(layout):
    """The version 1 image ids and configs, one a layer, parent first.

    Their exact bytes do not matter to any reader; they must only be distinct
    for distinct chains, which hashing the parent's id sees to.
    """
    parent, ids = None, []
    diff_ids = layout.config["rootfs"]["diff_ids"]
    for position, diff_id in enumerate(diff_ids):
        v1 = {"container_config": {"Cmd": None}, "created": "1970-01-01T00:00:00Z"}
        if position + 1 == len(diff_ids):
            v1.update({k: v for k, v in layout.config.items() if k not in ("rootfs", "history")})
        identity = sha256(dumps({**v1, "layer_id": diff_id, "parent": parent}))
        v1 = {"id": identity, **({"parent": parent} if parent else {}), **v1}
        ids.append((identity, dumps(v1)))
        parent = identity
    return ids


def save_new(out, images):
    out.directory("blobs")
    out.directory("blobs/sha256")
    out.file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    index, manifests, repositories = [], [], {}
    for layout, refs in images:
        config_id = sha256(layout.config_raw)
        out.file("blobs/sha256/" + config_id, layout.config_raw)
        layers, sources = [], {}
        for diff_id, data in layout.diffs():
            out.file("blobs/sha256/" + diff_id, data)
            desc = {
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": "sha256:" + diff_id,
                "size": len(data),
            }
            layers.append(desc)
            sources["sha256:" + diff_id] = desc
        # Docker 25 still writes the version 1 configs, as blobs nothing
        # refers to: a reader has to tolerate them.
        for _, v1 in legacy_chain(layout):
            out.file("blobs/sha256/" + sha256(v1), v1)
        manifest = dumps({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": "sha256:" + config_id,
                "size": len(layout.config_raw),
            },
            "layers": layers,
        })
        digest = sha256(manifest)
        out.file("blobs/sha256/" + digest, manifest)
        for ref in refs:
            name, tag = split_ref(ref)
            index.append({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": "sha256:" + digest,
                "size": len(manifest),
                "annotations": {
                    "io.containerd.image.name": full_name(ref),
                    "org.opencontainers.image.ref.name": tag,
                },
            })
            repositories.setdefault(name, {})[tag] = layers[-1]["digest"].split(":")[1]
        manifests.append({
            "Config": "blobs/sha256/" + config_id,
            "RepoTags": refs,
            "Layers": ["blobs/sha256/" + desc["digest"].split(":")[1] for desc in layers],
            "LayerSources": sources,
        })
    out.file("index.json", dumps({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": index,
    }))
    out.file("manifest.json", dumps(manifests))
    out.file("repositories", dumps(repositories))


def save_old(out, images):
    manifests, repositories, written = [], {}, {}
    for layout, refs in images:
        config_id = sha256(layout.config_raw)
        out.file(config_id + ".json", layout.config_raw)
        paths = []
        for (identity, v1), (diff_id, data) in zip(legacy_chain(layout), layout.diffs()):
            path = identity + "/layer.tar"
            out.directory(identity)
            out.file(identity + "/VERSION", b"1.0")
            out.file(identity + "/json", v1)
            first = written.setdefault(diff_id, path)
            if first == path:
                out.file(path, data)
            else:
                out.symlink(path, "../" + first)
            paths.append(path)
        for ref in refs:
            name, tag = split_ref(ref)
            repositories.setdefault(name, {})[tag] = paths[-1].split("/")[0]
        manifests.append({"Config": config_id + ".json", "RepoTags": refs, "Layers": paths})
    out.file("manifest.json", dumps(manifests))
    out.file("repositories", dumps(repositories))


def main(argv):
    if len(argv) < 5 or argv[1] != "--style" or argv[2] not in ("new", "old"):
        raise SystemExit(__doc__)
    images = {}
    for spec in argv[4:]:
        ref, _, source = spec.partition("=")
        images.setdefault(source, []).append(ref)
    loaded = [(Layout(*source.rsplit(":", 1)), refs) for source, refs in images.items()]
    out = Out(argv[3])
    (save_new if argv[2] == "new" else save_old)(out, loaded)
    out.close()


if __name__ == "__main__":
    main(sys.argv)
