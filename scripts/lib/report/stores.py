"""Generates OCI layouts whose images share layers and files, for scripts/report.

usage: stores.py ten|many|hostile DIR

The model: team/base images, runtimes on top of them, applications on top of those; files are drawn
from a common pool or new; a later layer rewrites and deletes files of an earlier one. `ten` has 10
images, `many` 500, `hostile` one whose names and history try to break out of the page.
"""
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench"))
from generate import Layout, file, header, text  # noqa: E402

# What an image may call its files: any bytes but a slash and NUL.
HOSTILE = [
    b"</script><script>document.title='owned'</script>",
    b"<!--<script>",
    b"<img src=x onerror=document.title='owned'>",
    b"\"'`onmouseover=document.title='owned'",
    b"{{data}} {b|bold} {a} ${document.title='owned'}",
    b"\xff\xfe not utf-8 \x80",
    b"line\nbreak\ttab\x1b[31m",
    "right \u202eto left\u202c \u2028 separator".encode(),
    b"&lt;b&gt; &amp; \\u003c",
    b"__proto__",
    b"constructor",
    "\u65e5\u672c\u8a9e \U0001f433".encode(),
]


class Images(Layout):
    """A layout whose images have names and a history."""

    def write(self, images):
        """Writes the index: {name: [(layer, step)], base first}."""
        self.index(
            self.image([layer for layer, _ in steps], {"io.containerd.image.name": name},
                       created="2026-01-02T03:04:05Z",
                       history=[{"created_by": step} for _, step in steps])
            for name, steps in images.items())


def named(name, data):
    """A file whose name is any bytes."""
    first = bytearray(header("x", b"0", len(data)))
    first[:100] = name.ljust(100, b"\0")
    first[148:156] = b" " * 8
    first[148:156] = b"%06o\0 " % sum(first)
    return bytes(first) + data + b"\0" * (-len(data) % 512)


def tree(rng, root, files, pool, new, size):
    """Members: `files` files in directories of a dozen; the part `new` of them is new."""
    for at in range(files):
        if at % 12 == 0:
            place = "%s/part-%d" % (root, at // 12)
            yield header(place + "/", b"5", mode=0o755)
        fresh = rng.random() < new
        data = text(rng, int(size * 10 ** rng.uniform(-1, 1))) if fresh else rng.choice(pool)
        yield file("%s/file-%d.txt" % (place, at), data)


def images(layout, bases, runtimes, applications, files, size):
    """{name: steps} of bases + runtimes + applications images."""
    rng = random.Random(6)
    pool = [text(rng, int(size * 10 ** rng.uniform(-1, 1))) for _ in range(files * 6)]
    made = {}

    def layer(members, step):
        return layout.layer(members, compress=False), step

    stacks = []
    for base in range(bases):
        steps = [layer(tree(rng, "usr/lib", files * 3, pool, 0.6, size), "ADD rootfs-%d.tar /" % base)]
        made["docker.io/team/base-%d:latest" % base] = steps
        stacks.append(steps)
    runs = []
    for runtime in range(runtimes):
        steps = stacks[runtime % bases] + [
            layer(tree(rng, "opt/runtime-%d" % runtime, files * 2, pool, 0.5, size),
                  "RUN /bin/sh -c install-runtime --version %d # buildkit" % runtime),
            layer(tree(rng, "var/cache/runtime", files, pool, 0.9, size),
                  "RUN /bin/sh -c fetch-cache # buildkit")]
        made["docker.io/team/runtime-%d:1.%d" % (runtime, runtime)] = steps
        runs.append(steps)
    # An application is on one runtime and has one of a few sets of files, for layers cost time.
    patches, sources = {}, []
    for app in range(applications):
        runtime = app % runtimes
        if (runtime, app % 2) not in patches:
            removed = [header("var/cache/.wh.runtime", b"0")] if app % 2 else []
            again = [file("opt/runtime-%d/part-0/file-0.txt" % runtime, text(rng, size))]
            patches[runtime, app % 2] = layer(
                removed + again, "RUN /bin/sh -c rm -rf /var/cache/runtime # buildkit")
        if len(sources) < min(applications, 150):
            sources.append(layer(tree(rng, "srv/app", files, pool, 0.4, size),
                                 "COPY app-%d /srv/app" % app))
        made["docker.io/team/app-%d:%d" % (app, app % 7)] = runs[runtime] + [
            patches[runtime, app % 2], sources[app % len(sources)]]
    return made


def main(kind, path):
    layout = Images(path)
    if kind == "ten":
        made = images(layout, 2, 3, 5, 40, 20_000)
    elif kind == "many":
        made = images(layout, 10, 40, 450, 8, 600)
    else:
        rng = random.Random(7)
        members = [named(name, text(rng, 3000 + 97 * at)) for at, name in enumerate(HOSTILE)]
        deep = "/".join("d%d" % at for at in range(20))
        members += [header("/".join(deep.split("/")[:at + 1]) + "/", b"5", mode=0o755)
                    for at in range(20)] + [file(deep + "/f", text(rng, 2000))]
        step = "RUN echo '</script><script>document.title=\"owned\"</script>' \x1b[31m \u202e <!--"
        made = {"docker.io/team/hostile:1": [(layout.layer(members, compress=False), step)]}
    layout.write(made)


if __name__ == "__main__":
    main(*sys.argv[1:])
