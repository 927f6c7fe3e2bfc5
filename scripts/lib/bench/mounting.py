"""Part `mount`: from the command to the first listing, and the resources of the daemon.

The model: `first-ls` is one shell command, mount and `ls` of the root: with the compiled
tree (`cached`), without it (`first`: strata has to merge the layers; the others have nothing to
prepare and are the same as in `cached`), and with an empty page cache (`cold`). `daemon` mounts,
runs `find -ls` and `grep -r` over the whole tree, and measures the daemon: resident and anonymous
memory, CPU seconds, and the FUSE requests that the kernel sent, counted by its tracepoint.
"""
import os
import shutil

from measure import drop_caches, interleave, interleave_many, read_all
from peers import EROFS_ABSENT, WITHOUT_DAEMON, Peers, daemon_of, unmount
import measure as m

GREP = ["grep", "-rqF", "-D", "skip", "a needle that is not there", "."]


def measure(bench, part, work, sections):
    """Runs the given sections."""
    if shutil.which("erofsfuse") is None:
        part.absent("erofsfuse", EROFS_ABSENT)
    peers = Peers(bench, bench.inputs.image(), work)
    if "first-ls" in sections:
        first_ls(bench, part, peers)
    if "daemon" in sections:
        daemon(bench, part, peers)


def first_ls(bench, part, peers):
    trees = os.path.join(peers.store, "trees")

    def case(peer, before):
        target = os.path.join(peers.work, "ls-" + peer.replace(" ", "-"))
        os.makedirs(target, exist_ok=True)

        def run_it():
            before()
            # Standard error is a pipe that a daemon would keep open.
            got = m.sample(["sh", "-c", 'dir=$1; shift; "$@" 2> /dev/null && exec ls "$dir"', "sh",
                            target, *peers.command(peer, target)])
            pid = daemon_of(target) if peer not in WITHOUT_DAEMON else None
            unmount(target)
            while pid and os.path.exists("/proc/%d" % pid):
                m.time.sleep(0.01)
            return got
        return run_it

    def forget_tree():
        for name in os.listdir(trees):
            path = os.path.join(trees, name)
            if os.path.isfile(path):
                os.unlink(path)

    for peer in peers.names():
        read_all(peers.backing(peer))
    for state, before in (("cached", m.settle), ("first", forget_tree), ("cold", drop_caches)):
        repeat = bench.repeat if state == "cold" else 2 * bench.repeat
        got, failed = interleave(repeat, {p: case(p, before) for p in peers.names()})
        part.row("first-ls", "command to first ls", got, failed, state, peers.image.name,
                 repeat=repeat)


def daemon(bench, part, peers):
    def case(peer):
        def run_it():
            with peers.mount(peer) as mount:
                found = mount.requests(["find", ".", "-ls"])
                grep = mount.requests(["sh", "-c", '"$@" || :', "sh", *GREP])
                resident, anonymous = mount.memory()
                return {"resident memory": {"value": resident},
                        "anonymous memory": {"value": anonymous},
                        "CPU of the daemon": {"value": mount.cpu()},
                        "requests of find -ls": {"value": found["requests"]},
                        "requests of grep -r": {"value": grep["requests"]}}
        return run_it
    names = [peer for peer in peers.names() if peer not in WITHOUT_DAEMON]
    part.absent("overlayfs, daemon", "the kernel's overlayfs has no daemon")
    rows, failed = interleave_many(bench.repeat, {peer: case(peer) for peer in names})
    for work, got in rows.items():
        unit = {"r": "kB", "a": "kB", "C": "s"}[work[0]] if "requests" not in work else "requests"
        part.row("daemon", work, got, failed, "after find -ls and grep -r", peers.image.name,
                 unit=unit, repeat=bench.repeat)
