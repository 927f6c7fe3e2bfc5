"""Workers that change one store at the same time: what `scripts/concurrent` calls.

The model: a worker has names that nobody else uses, and knows the tree behind each of them, so what
it does to them is serial, whatever the others do to the layers behind them. A command that says
"in use" has changed nothing: others look at the same image. The first thing that is wrong ends the
run, with the seed.
"""
import argparse
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time

from left import compare, files_of
from pool import IMAGES, Pool

PATIENCE = 120
COMMITS = ["commit:%d" % number for number in range(4)]
# What is said of an image that somebody uses: a running command, a mount, an upper.
HELD = ["in use", "is mounted", "not mounted any more", "on top of it"]


class Wrong(Exception):
    """The store is not what the model says."""


def require(true, *what):
    if not true:
        raise Wrong(" ".join(map(str, what)))


class Worker:
    """One of them, with the model of what is its own."""

    def __init__(self, args, pool, number):
        self.args, self.pool = args, pool
        self.rng = random.Random("%d worker %d" % (args.seed, number))
        self.prefix = "w%d.test" % number
        self.dir = os.path.join(args.work, "w%d" % number)
        self.made = 0
        self.names, self.counts = {}, collections.Counter()
        self.history = collections.deque(maxlen=8)
        os.makedirs(self.dir + "/mnt")

    def name(self, what):
        return "%s/%s" % (self.prefix, what)

    def strata(self, *words, kill=False):
        """(status, output, what it said) of one command; a status of None if it was killed."""
        command = [self.args.strata, "--root", self.args.work + "/store", *words]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, cwd=self.dir) as child:
            if kill:
                try:
                    child.wait(timeout=self.rng.random() * 0.1)
                except subprocess.TimeoutExpired:
                    child.send_signal(signal.SIGKILL)
            try:
                out, said = child.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                child.kill()
                raise Wrong("hangs:", *words) from None
        status = None if child.returncode == -signal.SIGKILL else child.returncode
        said = said.decode(errors="replace").strip()
        self.history.append("%s (%s) %s" % (" ".join(words), status, said))
        return status, out, said

    def must(self, *words):
        status, out, said = self.strata(*words)
        require(status == 0, *words, "ended with", status, said, out.decode(errors="replace")[-500:])
        return out

    def change(self, *words, names):
        """A command after which the worker's names are `names`."""
        kill = self.rng.random() * 100 < self.args.kill
        status, _, said = self.strata("-q", *words, kill=kill)
        if status == 0:
            self.names = names
        elif status is None:
            self.after_kill(words, names)
        else:
            require(any(word in said for word in HELD), *words, "ended with", status, said)
            self.counts["in use"] += 1

    def after_kill(self, words, names):
        """What was wanted is there, or what was before. A name that stands for either is taken away."""
        self.counts["killed"] += 1
        seen = self.seen()
        require(seen in (set(names), set(self.names)), *words, "was killed, and left", seen)
        both = {name for name in seen if names.get(name) != self.names.get(name)
                and name in names and name in self.names}
        self.names = names if seen == set(names) else self.names
        while both & set(self.names):
            name = min(both & set(self.names))
            self.change("rmi", name, names={key: tree for key, tree in self.names.items()
                                            if key != name})

    def seen(self):
        """The worker's names in the store."""
        rows = map(json.loads, self.must("images", "--format", "json").splitlines())
        every = {"%(Repository)s:%(Tag)s" % row for row in rows}
        return {name for name in every if name.startswith(self.prefix)}

    def any_name(self):
        return self.rng.choice(sorted(self.names)) if self.names else None

    def do_load(self):
        number = self.rng.randrange(IMAGES)
        name = self.name("image:%d" % number)
        path = "%s/%d.tar" % (self.dir, number)
        if not os.path.exists(path):
            self.pool.write(path, number, name)
        self.change("load", "-i", path, names={**self.names, name: self.pool.trees[number]})

    def do_tag(self, name):
        to = self.name("tag:%d" % self.rng.randrange(6))
        self.change("tag", name, to, names={**self.names, to: self.names[name]})

    def do_remove(self, name):
        self.change("rmi", name, names={key: tree for key, tree in self.names.items()
                                        if key != name})

    def do_collect(self):
        self.must("-q", "gc")

    def do_check(self):
        self.must("-q", "fsck")

    def do_look(self):
        require(self.seen() == set(self.names), "images has", self.seen(), "of", set(self.names))
        self.must("df", "--format", "json")

    def do_cat(self, name):
        path, content = self.rng.choice(sorted(self.names[name].items()))
        out = self.must("cat", "%s:/%s" % (name, path))
        require(out == content, name, path, "has other bytes")

    def do_export(self, name):
        seen = files_of(self.must("-q", "export", name))
        require(seen == self.names[name], "export of", name, "has another tree")

    def do_save(self, name):
        self.must("-q", "save", "-o", self.dir + "/saved.tar", name)
        with tarfile.open(self.dir + "/saved.tar") as tar:
            require("manifest.json" in tar.getnames(), "save of", name, "has no manifest.json")
        os.unlink(self.dir + "/saved.tar")

    def do_copy(self, name):
        self.must("-q", "copy", name, "oci:%s/layout:1" % self.dir)
        shutil.rmtree(self.dir + "/layout")

    def do_mount(self, name):
        backend = self.rng.choice(["kernel", "fuse"])
        self.must("-q", "mount", "--backend", backend, name, "mnt")
        try:
            for path, content in self.rng.sample(sorted(self.names[name].items()), 3):
                with open("%s/mnt/%s" % (self.dir, path), "rb") as file:
                    require(file.read() == content, name, path, "has other bytes when mounted")
            if sum(tree == self.names[name] for tree in self.names.values()) == 1:
                self.refused_to_remove(name)
        finally:
            self.umount()

    def umount(self):
        """For a moment the copies of this process that become other workers' commands have the
        files open that it has."""
        for _ in range(100):
            status, _, said = self.strata("-q", "umount", "mnt")
            if status == 0:
                return
            require("is busy" in said, "umount of", self.dir, "ended with", status, said)
            time.sleep(0.05)
        raise Wrong(self.dir + "/mnt stays busy")

    def refused_to_remove(self, name):
        status, _, said = self.strata("rmi", name)
        if status == 0:
            # Another worker has a name of the same image, so the image has stayed.
            del self.names[name]
        else:
            require(any(word in said for word in HELD), "rmi of", name, "said", said)

    def do_commit(self, name):
        """Changes an image in a writable layer, and makes one of it, under another name."""
        self.made += 1
        upper, backend = "%s-%d" % (self.prefix, self.made), self.rng.choice(["kernel", "fuse"])
        self.must("-q", "mount", "--backend", backend, "--upper", upper, name, "mnt")
        tree = dict(self.names[name])
        try:
            gone = self.rng.choice(sorted(tree))
            os.unlink("%s/mnt/%s" % (self.dir, gone))
            del tree[gone]
            tree["new"] = self.rng.randbytes(self.rng.randrange(1 << 16))
            with open(self.dir + "/mnt/new", "wb") as file:
                file.write(tree["new"])
        finally:
            self.umount()
        to = self.rng.choice([to for to in map(self.name, COMMITS) if to != name])
        self.change("commit", upper, to, names={**self.names, to: tree})
        self.must("-q", "rm", upper)

    def work(self, until, stop):
        weights = {self.do_load: 6, self.do_collect: 1, self.do_check: 0.3, self.do_look: 1}
        named = {self.do_tag: 3, self.do_remove: 6, self.do_cat: 3, self.do_export: 1,
                 self.do_save: 1, self.do_copy: 1, self.do_mount: 3, self.do_commit: 1}
        while time.monotonic() < until and not stop.is_set():
            all_of_them = {**weights, **(named if self.names else {})}
            what, = self.rng.choices(list(all_of_them), list(all_of_them.values()))
            self.counts[what.__name__[3:]] += 1
            if what in named:
                what(self.any_name())
            else:
                what()


def run(args):
    pool = Pool(args.seed)
    # The store, with an image that nobody removes.
    first = Worker(args, pool, args.processes)
    while not first.names:
        first.do_load()
    workers = [Worker(args, pool, number) for number in range(args.processes)]
    stop, wrong = threading.Event(), []
    until = time.monotonic() + args.seconds

    def work(worker):
        try:
            worker.work(until, stop)
        except (Wrong, OSError, tarfile.TarError) as error:
            wrong.append("%s: %s; its last commands, with their status:\n%s" % (
                worker.prefix, error, "\n".join(worker.history)))
            stop.set()
    threads = [threading.Thread(target=work, args=[worker]) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = sum((worker.counts for worker in workers), collections.Counter())
    print(", ".join("%s %d" % pair for pair in sorted(counts.items())))
    require(not wrong, "; ".join(wrong))
    names = {name: tree for worker in [*workers, first]
             for name, tree in worker.names.items()}
    compare(args.strata, args.work, names)
    done = sum(counts.values()) - counts["killed"] - counts["in use"]
    print("%d commands of %d workers, %d names left: as one after the other" % (
        done, len(workers), len(names)))


def main():
    parser = argparse.ArgumentParser(prog="scripts/concurrent")
    parser.add_argument("--strata", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10 ** 6)
    parser.add_argument("--kill", type=float, default=3)
    args = parser.parse_args()
    try:
        run(args)
    except (Wrong, AssertionError, RuntimeError) as error:
        sys.exit("concurrent: seed %d: %s" % (args.seed, error))


if __name__ == "__main__":
    main()
