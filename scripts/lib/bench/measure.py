"""Measures commands side by side.

The model: a *case* is one piece of work by one peer; it returns a sample, a dict with `value` (by
default seconds of wall time) and all else that it measured. `interleave` runs the cases of one row
in turns, A B C, B A C, C A B, so that a slow minute of the machine affects all of them equally. A
row keeps every sample; the figure shown is the median, the noise the smallest and the largest.

A case that fails is not run again, and the row says why; no failure is left out silently.

Peak memory comes from wait4(2) and is that of the largest process below the child; it cannot be
less than the memory of this interpreter itself, about 12 MB.
"""
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import time


PROGRAMS = ("sh", "tar", "gzip", "zstd", "podman", "skopeo", "umoci", "containerd", "ctr", "git",
            "fuse-overlayfs", "chown", "rm")


# Bytes of free memory that are touched before a sample, and madvise(2)'s constants for that,
# which older versions of mmap lack.
BACKED = 2 << 30
NOHUGEPAGE, POPULATE = 15, 23


# The peers that are measured; all, if it is empty.
ONLY = set()
# What the names of the works contain that are measured, where a section has several.
WORKS = []


def wanted(work):
    """Whether a work is to be measured."""
    return not WORKS or any(text in work for text in WORKS)


def paired(base, other):
    """The ratio of samples that were taken in the same turn: its median, and the bounds between
    which that lies with 95 % certainty, whatever the distribution (those of the sign test). None
    for fewer samples than bound anything."""
    ratios = sorted(b / a for a, b in zip(base, other))
    count, below, at = len(ratios), 0.0, 0
    while at < count // 2:
        below += math.comb(count, at) / 2 ** count
        if below > 0.025:
            break
        at += 1
    if at == 0:
        return None
    return statistics.median(ratios), ratios[at - 1], ratios[count - at]


class Failed(Exception):
    """A command of a benchmark ended with an error."""


def sample(argv, cwd=None, env=None, stdout=subprocess.DEVNULL):
    """Runs a command to its end: wall seconds, CPU seconds, peak kB. Raises Failed."""
    environment = dict(os.environ, LC_ALL="C", **(env or {}))
    start = time.perf_counter()
    with subprocess.Popen(argv, cwd=cwd, env=environment, stdin=subprocess.DEVNULL,
                          stdout=stdout, stderr=subprocess.PIPE) as child:
        errors = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        took = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        text = errors.decode(errors="replace").strip().splitlines()
        raise Failed("%s: status %d: %s" % (" ".join(map(str, argv))[:100], child.returncode,
                                            text[-1][:200] if text else "no message"))
    return {"value": took, "cpu": usage.ru_utime + usage.ru_stime, "peak_kb": usage.ru_maxrss}


def run(*argv, **options):
    """Runs a command that is not measured; its output as text. Raises Failed."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)
    if done.returncode:
        raise Failed("%s: status %d: %s" % (" ".join(map(str, argv))[:150], done.returncode,
                                            done.stderr.strip()[-300:]))
    return done.stdout


def unmount_below(directory):
    """Unmounts all that is mounted below a directory."""
    with open("/proc/self/mounts", encoding="utf-8") as file:
        mounted = [line.split()[1] for line in file]
    for target in reversed(mounted):
        if target.startswith(directory + "/"):
            subprocess.run(["umount", "-l", target], check=False)


def clear(directory):
    """Removes a directory, and unmounts whatever is still mounted below it."""
    unmount_below(directory)
    subprocess.run(["rm", "-rf", "--one-file-system", directory], check=False)


def settle():
    """Writes out what earlier commands left dirty, so that the next does not pay for it."""
    os.sync()


def give_memory():
    """Settles, and touches free memory, for a case that writes much right after. The host of a
    virtual machine takes back memory that is free for seconds, and giving it again took up to 2 s
    a GiB, several times as long as copying into it. A process of its own touches it, in small
    pages like a file's, for children inherit the peak of this one. Not before other work, for the
    host's taking it back costs time as well."""
    settle()
    with open("/proc/meminfo", encoding="ascii") as file:
        free = next(int(line.split()[1]) << 10 for line in file if line.startswith("MemFree"))
    run(sys.executable, "-c", "import mmap\nmemory = mmap.mmap(-1, %d)\n"
        "memory.madvise(%d)\nmemory.madvise(%d)" % (min(BACKED, free // 2), NOHUGEPAGE, POPULATE))


def forget_deleted(*warm):
    """Makes ext4 forget inodes that any program deleted before, for work that creates files:
    ext4 passes over inodes deleted in the last minutes, as far as their tables are in memory,
    and its search for others made creating files ten times as slow. The files that the work reads,
    and the programs, are read back into the cache."""
    drop_caches()
    for path in warm + tuple(filter(None, map(shutil.which, PROGRAMS))):
        read_all(path)


def drop_caches():
    """Makes the next reads go to the disk: data, directories and inodes."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("3")


def read_all(path):
    """Brings a file, or every file of a directory, into the page cache."""
    command = ["find", "-H", path, "-type", "f", "-exec", "cat", "{}", "+"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def turns(repeat, cases):
    """Every (peer, case) in each round, in another order each time, the same in every run: the
    order matters, for a disk that was busy is slower for a while."""
    cases = {peer: case for peer, case in cases.items() if not ONLY or peer in ONLY}
    for number in range(repeat):
        yield from random.Random(number).sample(list(cases.items()), len(cases))


def interleave(repeat, cases):
    """Runs {peer: case} in turns; {peer: summary} and {peer: why it failed}."""
    samples, failed = {peer: [] for peer in cases}, {}
    for peer, case in turns(repeat, cases):
        if peer not in failed:
            try:
                samples[peer].append(case())
            except Failed as error:
                failed[peer] = str(error)
    return {peer: summary(got) for peer, got in samples.items() if got}, failed


def interleave_many(repeat, cases):
    """Like `interleave`, for cases that return {work: sample}: {work: {peer: summary}}, failed."""
    samples, failed = {}, {}
    for peer, case in turns(repeat, cases):
        if peer not in failed:
            try:
                for work, got in case().items():
                    samples.setdefault(work, {}).setdefault(peer, []).append(got)
            except Failed as error:
                failed[peer] = str(error)
    return {work: {peer: summary(got) for peer, got in peers.items()}
            for work, peers in samples.items()}, failed


def summary(samples):
    """What is kept of the samples of one peer."""
    values = [sample["value"] for sample in samples]
    kept = {"median": statistics.median(values), "min": min(values), "max": max(values),
            "samples": values}
    for key in sorted(set().union(*samples) - {"value"}):
        kept[key] = statistics.median(sample[key] for sample in samples if key in sample)
    return kept
