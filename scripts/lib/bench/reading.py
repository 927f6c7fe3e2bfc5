"""Part `read`: work on mounted images.

The model: each kind of work runs in three states. `warm`: everything is mounted once, the work ran
before. `cold`: the page cache is dropped, then the tree is mounted, then the work runs. `fresh`: a
new mount, while the host's page cache holds the mount's source files. Only the work is timed.
The base of the ratios is the kernel's overlayfs.

Lists of paths are made once from the overlayfs mount and used for every peer. `big` is an image
with one big file, where strata runs in both of its profiles. `lowers` is the tree of the image in
one layer and in twenty, warm and fresh.
"""
import contextlib
import os
import shutil
import stat

from measure import drop_caches, interleave, read_all, sample, settle, wanted
from mounting import GREP
from peers import EROFS_ABSENT, Peers


def lists(peers):
    """Files with the paths of everything, of all small files, and of all directories."""
    found = {"all": [], "small": [], "dirs": []}
    with peers.mount("overlayfs") as mount:
        for folder, dirs, names in os.walk(mount.target):
            here = os.path.relpath(folder, mount.target)
            found["dirs"].append(here)
            for name in dirs + names:
                path = os.path.normpath(os.path.join(here, name))
                info = os.lstat(os.path.join(folder, name))
                found["all"].append(path)
                if stat.S_ISREG(info.st_mode) and 0 < info.st_size <= 128 * 1024:
                    found["small"].append(path)
    paths = {}
    for name, lines in found.items():
        paths[name] = os.path.join(peers.work, "list-" + name)
        with open(paths[name], "w", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(line + "\n" for line in lines if "\n" not in line)
    return paths


def works(bench, peers, paths):
    """{work: command}, each run with the mount as its directory."""
    client = bench.client
    found = {
        "find -ls": ["find", ".", "-ls"],
        "stat storm": [client, "stat", paths["all"]],
        "negative lookups": [client, "negative", paths["dirs"], "10"],
        "grep -r": ["sh", "-c", '"$@"; [ $? = 1 ]', "sh", *GREP],
        "tar c": ["sh", "-c", "tar -cf - . | cat > /dev/null"],
        "small files": [client, "small", paths["small"]],
        "eight processes": [client, "eight", paths["small"]],
    }
    if not bench.quick:
        found["import pandas"] = ["chroot", ".", "/usr/bin/env", "PYTHONDONTWRITEBYTECODE=1",
                                  "PYTHONPATH=/app/lib", "python3", "/app/main.py"]
    return {work: command for work, command in found.items() if wanted(work)}


def measure(bench, part, work, sections):
    """Runs the given sections."""
    if shutil.which("erofsfuse") is None:
        part.absent("erofsfuse", EROFS_ABSENT)
    if bench.quick:
        part.absent("import pandas", "--quick has no image with Python")
    states = {"warm": warm, "cold": cold, "fresh": fresh}
    for section in sections:
        if section == "big":
            peers = Peers(bench, bench.inputs.big(), work)
            names = [*peers.names(), "strata passthrough"]
            for state, way in states.items():
                # With 4,000 from the cache, the start of the process would be measured.
                count = (4000 if state == "cold" else 100000) // (10 if bench.quick else 1)
                commands = {"big file, sequential": [bench.client, "seq", "big"],
                            "big file, random": [bench.client, "rand", "big", str(count)]}
                way(bench, part, peers, names, commands, "big")
        elif section == "lowers":
            for count in (1, 20):
                image = bench.inputs.spread(bench.inputs.image(), bench.strata, count)
                peers = Peers(bench, image, os.path.join(work, str(count)))
                commands = works(bench, peers, lists(peers))
                for state in ("warm", "fresh"):
                    states[state](bench, part, peers, peers.names(), commands, section)
        else:
            peers = Peers(bench, bench.inputs.image(), work)
            commands = works(bench, peers, lists(peers))
            states[section](bench, part, peers, peers.names(), commands, section)


def warm(bench, part, peers, names, commands, section):
    fill_caches(peers, names)
    with contextlib.ExitStack() as stack:
        mounts = {peer: stack.enter_context(peers.mount(peer)) for peer in names}
        for work, command in commands.items():
            def case(mount, command=command):
                before = mount.cpu()
                got = sample(command, cwd=mount.target)
                return dict(got, daemon_cpu=mount.cpu() - before)
            cases = {peer: lambda mount=mounts[peer]: case(mount) for peer in names}
            interleave(1, cases)
            got, failed = interleave(bench.repeat, cases)
            part.row(section, work, got, failed, "warm", peers.image.name, repeat=bench.repeat)


def cold(bench, part, peers, names, commands, section):
    mounting(bench, part, peers, names, commands, section, "cold", lambda _: drop_caches())


def fresh(bench, part, peers, names, commands, section):
    fill_caches(peers, names)
    for peer in names:
        with peers.mount(peer) as mount:
            sample(["find", ".", "-ls"], cwd=mount.target)

    def before(peer):
        # A kernel that reclaims cold memory (DAMON) has taken some of it meanwhile.
        read_all(peers.backing(peer))
        settle()
    mounting(bench, part, peers, names, commands, section, "fresh", before)


def fill_caches(peers, names):
    """Reads the source files of all peers into the page cache, for all in the same way: after
    random reads, or after a write, a file is in smaller or larger pieces there, and copying from
    small pieces is slower."""
    drop_caches()
    for peer in names:
        read_all(peers.backing(peer))


def mounting(bench, part, peers, names, commands, section, state, before):
    """Every run has a mount of its own, made after `before(peer)`."""
    for work, command in commands.items():
        def case(peer, command=command):
            before(peer)
            with peers.mount(peer) as mount:
                got = sample(command, cwd=mount.target)
                return dict(got, daemon_cpu=mount.cpu())
        got, failed = interleave(bench.repeat, {
            peer: lambda peer=peer: case(peer) for peer in names})
        part.row(section, work, got, failed, state, peers.image.name, repeat=bench.repeat)
