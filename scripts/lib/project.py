#!/usr/bin/env python3
"""Removes from a tree printed by treesum.py what one side of a comparison cannot have.

usage: project.py [--user] [--overflow] [--seconds] < TREE.jsonl

--user     as an ordinary user's engine unpacks it: no devices, no trusted.* attributes (only
           root sees those), and an owner whom its user namespace does not have is root
--overflow such an owner is the overflow id, as the kernel shows it
--seconds  times in whole seconds, as in the layers that buildah and podman write
"""
import argparse
import json
import sys

# The ids that useradd(8) gives to a new user, and the user itself.
IDS = 65536 + 1
OVERFLOW = 65534


def main():
    args = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1][7:])
    args.add_argument("--user", action="store_true")
    args.add_argument("--overflow", action="store_true")
    args.add_argument("--seconds", action="store_true")
    args = args.parse_args()
    for line in sys.stdin:
        entry = json.loads(line)
        if args.user:
            if entry["type"] in ("char", "block"):
                continue
            if args.overflow:
                for owner in "uid", "gid":
                    entry[owner] = entry[owner] if entry[owner] < IDS else OVERFLOW
            elif entry["uid"] >= IDS or entry["gid"] >= IDS:
                entry["uid"] = entry["gid"] = 0
            entry["xattrs"] = {name: value for name, value in entry["xattrs"].items()
                               if not name.startswith("trusted.")}
        if args.seconds:
            entry["mtime_ns"] = entry["mtime_ns"] // 10**9 * 10**9
        print(json.dumps(entry, ensure_ascii=False))


if __name__ == "__main__":
    for stream in sys.stdin, sys.stdout:
        stream.reconfigure(encoding="utf-8")
    main()
