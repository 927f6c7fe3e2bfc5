"""The images that the workers of `scripts/concurrent` share layers of.

The model: a layer is {path: bytes}, and {path: None} for a whiteout; a tree is what a stack of them
leaves, {path: bytes}. Contents come from a small set, so that layers share many of them.
"""
import hashlib
import io
import json
import os
import random
import tarfile

LAYERS, IMAGES, CONTENTS = 12, 16, 60


def layers(rng):
    contents = [rng.randbytes(rng.randrange(1 << rng.randrange(1, 18))) for _ in range(CONTENTS)]
    paths = ["d%d/f%d" % (n % 7, n) for n in range(70)]
    every = []
    for number in range(LAYERS):
        chosen = rng.sample(paths, 25)
        layer = {path: rng.choice(contents) for path in chosen}
        for path in rng.sample([path for path in paths if path not in layer], 4):
            layer[path] = None
        layer["layer/%d" % number] = b"%d\n" % number
        every.append(layer)
    return every


def tree(stack):
    """What layers leave, the base first."""
    seen = {}
    for layer in stack:
        for path, content in layer.items():
            seen.pop(path, None)
            if content is not None:
                seen[path] = content
    return seen


def archive_of(layer):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, content in sorted(layer.items()):
            if content is None:
                directory, name = os.path.split(path)
                path, content = os.path.join(directory, ".wh." + name), b""
            info = tarfile.TarInfo(path)
            info.size, info.mtime, info.mode = len(content), 10 ** 9, 0o644
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


class Pool:
    """All images: `trees[n]`, and archives of docker's kind under any name."""

    def __init__(self, seed):
        rng = random.Random(seed)
        every = layers(rng)
        stacks = [sorted(rng.sample(range(LAYERS), rng.randrange(1, 5))) for _ in range(IMAGES)]
        self.trees = [tree([every[n] for n in stack]) for stack in stacks]
        self._stacks, self._tars = stacks, [archive_of(layer) for layer in every]

    def write(self, path, number, name):
        """An archive of image `number`, called `name`."""
        tars = [self._tars[n] for n in self._stacks[number]]
        digests = [hashlib.sha256(tar).hexdigest() for tar in tars]
        config = json.dumps({
            "architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z",
            "config": {"Labels": {"number": str(number)}},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest for digest in digests]},
        }).encode()
        files = {digest + "/layer.tar": tar for digest, tar in zip(digests, tars)}
        config_name = hashlib.sha256(config).hexdigest() + ".json"
        files[config_name] = config
        files["manifest.json"] = json.dumps([{
            "Config": config_name, "RepoTags": [name],
            "Layers": [digest + "/layer.tar" for digest in digests]}]).encode()
        with tarfile.open(path, mode="w") as tar:
            for member, content in files.items():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
