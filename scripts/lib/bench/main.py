"""Runs the parts and writes the report: what `scripts/bench` calls once all tools are installed.

The model: a part has sections; each section writes its rows to DIR/PART.json as it gets them and
takes less than ten minutes, so `PART/SECTION` can be run alone and again. The report is made from
the documents that exist. With --quick everything is small, with --peers only some peers run; both go
to other directories, so that such a run never replaces the figures of a full run.
"""
import argparse
import os
import signal
import sys
import tempfile
import time

import growing
import importing
import inputs
import machine
import measure
import mounting
import nodes
import pulling
import reading
import report
import results
import writing

# Every part: its module, and its sections in order.
PARTS = {
    "import": (importing, ["gzip", "zstd", "docker", "rebuilt"]),
    "pull": (pulling, ["gzip", "zstd"]),
    "mount": (mounting, ["first-ls", "daemon"]),
    "read": (reading, ["warm", "cold", "fresh", "big", "lowers"]),
    "write": (writing, ["trees", "storm", "fio", "sqlite", "copy-up"]),
    "nodes": (nodes, ["pull", "snapshots"]),
    "growth": (growing, ["entries", "layers", "width", "links", "store"]),
}


class Bench:
    """The state that all parts share."""

    def __init__(self, args, root):
        self.root, self.quick = root, args.quick
        self.repeat = args.repeat or (3 if args.quick else 5)
        self.directory, self.corpus = args.directory, args.corpus
        os.makedirs(args.directory, exist_ok=True)
        self.strata = os.path.join(root, "target/release/strata")
        self.strata_overlay = os.path.join(root, "target/release/strata-overlay")
        self.fuse_overlayfs_2 = os.path.join(root, "target/tools/bin/fuse-overlayfs")
        self.client = os.path.join(root, "target/tools/benchclient")
        self.inputs = inputs.Inputs(os.path.join(args.directory, "inputs"), args.corpus, args.quick)


def wanted_sections(words):
    """{part: sections} from PART and PART/SECTION words."""
    wanted = {}
    for word in words or PARTS:
        part, _, section = word.partition("/")
        if part not in PARTS or section and section not in PARTS[part][1]:
            raise SystemExit("bench: no part %s; there are %s" % (word, ", ".join(
                "%s (%s)" % (name, " ".join(each[1])) for name, each in PARTS.items())))
        wanted.setdefault(part, []).extend([section] if section else PARTS[part][1])
    return wanted


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeat", type=int)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--peers")
    parser.add_argument("--work", action="append", default=[])
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--directory", required=True)
    parser.add_argument("parts", nargs="*")
    args = parser.parse_args()
    # Killed or not, nothing stays mounted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    root = os.path.realpath(os.path.join(os.path.dirname(__file__), "../../.."))
    bench = Bench(args, root)
    measure.ONLY.update((args.peers or "").split(",") if args.peers else ())
    measure.WORKS.extend(args.work)
    some = args.peers or args.work
    kept = os.path.join(root, "target/bench-of-some" if some else
                        "target/bench" if args.quick else "docs/benchmarks")
    page = os.path.join(kept, "BENCHMARKS.md") if args.quick or some else \
        os.path.join(root, "docs/BENCHMARKS.md")
    if not args.report:
        wanted = wanted_sections(args.parts)
        facts = machine.facts(bench)
        for name, sections in wanted.items():
            for section in sections:
                print("%s/%s" % (name, section), flush=True)
                part = results.Part(os.path.join(kept, name + ".json"), name, facts)
                work = tempfile.mkdtemp(prefix="run-", dir=bench.directory)
                start = time.monotonic()
                try:
                    PARTS[name][0].measure(bench, part, work, [section])
                finally:
                    measure.clear(work)
                print("  took %d s" % (time.monotonic() - start), flush=True)
    report.write(page, kept, os.path.relpath(kept, os.path.dirname(page)))
    print("report: " + os.path.relpath(page, root))


if __name__ == "__main__":
    main()
