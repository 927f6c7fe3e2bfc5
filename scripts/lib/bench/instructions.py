"""Counts instructions, which a busy machine does not change, and compares them with bounds.

The model: the example `instructions` does one kind of work ROUNDS times under callgrind; two runs
with different rounds give the instructions of one round, whatever the start costs. A bound is the
count at the time it was set, plus a tolerance for other compilers and libraries; a change that
exceeds it raises the bound here and gives the reason. Callgrind has no SHA instructions, so `hash`
counts the portable code.
"""
import os
import re
import sys
import tempfile

from measure import run

TOLERANCE = 1.15
# work: (rounds, rounds of the second run, instructions of one round when the bound was set)
WORKS = {
    "lookup": (1_000, 21_000, 1_354),
    "listing": (1_000, 41_000, 454),
    "diff": (1_000, 11_000, 9_626),
    "hash": (100, 1_100, 106_829),
}


def count(program, work, rounds, scratch):
    """Instructions of a whole run."""
    out = os.path.join(scratch, "out")
    run("valgrind", "--tool=callgrind", "--callgrind-out-file=" + out, "-q", program, work,
        str(rounds))
    with open(out, encoding="utf-8") as file:
        return int(re.search(r"^(?:summary|totals): (\d+)", file.read(), re.M).group(1))


def main(program):
    bad = 0
    with tempfile.TemporaryDirectory() as scratch:
        for work, (few, many, bound) in WORKS.items():
            each = (count(program, work, many, scratch) - count(program, work, few, scratch)) / (
                many - few)
            dearer = each > bound * TOLERANCE
            bad |= dearer
            print("%-8s %9.1f instructions, bound %.1f%s" % (
                work, each, bound * TOLERANCE, ": DEARER than it was" if dearer else ""))
    return bad


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
