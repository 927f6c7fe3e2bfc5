"""Compares what three readers find in random tars: what `scripts/differential` calls.

The model: of each tar strata, Go's archive/tar and GNU tar make a list of members, up to the first
that they refuse. A difference is

  as GNU tar, as Go   strata's member is that of one of the two: of GNU tar's where Go refuses the
                      tar, or where the tar has a global header
  refused             strata refuses what another one takes, with a message that is known here
  WRONG               anything else; it is printed with the seed, or the name of the input

GNU tar lists no bytes; digests are compared with Go's alone.
"""
import argparse
import collections
import datetime
import os
import re
import subprocess
import sys

import tars

FIELDS = ["kind", "perm", "uid", "gid", "time", "size", "device", "name", "link"]
# In what strata's member may differ from Go's, and be GNU tar's: a global header counts (POSIX), and
# Go passes over it.
GLOBAL = {"uid", "gid", "time"}
# What strata refuses, though a reader takes it.
REFUSED = ["tar readers disagree", "is not supported", "is not between", "is not a number",
           "this is no tar header", "PAX record is malformed", "the tar ends in the middle",
           "an extended header has no member", "has a bad value", "a sparse file without a size",
           "a symbolic link without a target", "the size is negative"]
KINDS = {"-": "file", "C": "file", "d": "dir", "l": "symlink", "h": "link", "c": "char", "b": "block", "p": "fifo"}
PERMISSIONS = [(1, "r", 0o400), (2, "w", 0o200), (4, "r", 0o40), (5, "w", 0o20), (7, "r", 4), (8, "w", 2)]


def lists(lines):
    """{file: (members, how it ended)} of one program."""
    found, members = {}, []
    for line in lines:
        word, rest = line.split(" ", 1)
        if word == "member":
            members.append(rest.split(" "))
        else:
            path, end = rest.split(" ", 1)
            found[path], members = (members, end), []
    return found


def gnu(path):
    """The same of GNU tar, without digests; a name as it is escaped."""
    done = subprocess.run(["tar", "-tvPf", path, "--full-time", "--numeric-owner",
                           "--quoting-style=escape"], capture_output=True, check=False,
                          env=dict(os.environ, TZ="UTC", LC_ALL="C"))
    members = []
    for line in done.stdout.decode("latin-1").splitlines():
        found = re.match(r"(.)(\S{9}) (-?\d+)/(-?\d+) +(\S+) (\S+ \S+) +(.*)$", line, re.S)
        if not found:
            return members, "error cannot read " + line
        kind, perm, uid, gid, size, time, rest = found.groups()
        name, link = rest, ""
        for between in (" -> ", " link to "):
            if kind in "lh" and between in rest:
                name, link = rest.split(between, 1)
        members.append({"kind": KINDS.get(kind, kind), "perm": bits(perm), "uid": uid, "gid": gid,
                        "device": size if kind in "cb" else "-", "time": time,
                        "size": size if kind in "-C" else "0", "name": name, "link": link})
    return members, "ok" if done.returncode == 0 else "error " + done.stderr.decode(errors="replace").strip()[:80]


def bits(text):
    mode = sum(bit for at, letter, bit in PERMISSIONS if text[at - 1] == letter)
    for at, execute, bit, special in ((3, "x", 0o100, 0o4000), (6, "x", 0o10, 0o2000), (9, "x", 1, 0o1000)):
        letter = text[at - 1]
        mode += bit if letter in "xst" else 0
        mode += special if letter in "sStT" else 0
    return "%o" % mode


def escaped(text):
    """A name in hex as GNU tar escapes it."""
    known = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 32: " ", 92: "\\\\"}
    data = b"" if text == "-" else bytes.fromhex(text)
    return "".join(known.get(byte) or (chr(byte) if 32 < byte < 127 else "\\%03o" % byte) for byte in data)


def differing(ours, other):
    """The fields in which strata's member differs from GNU tar's."""
    member = dict(zip(FIELDS, ours))
    found = []
    for field, value in other.items():
        mine = member[field]
        if field in ("name", "link"):
            mine = escaped(mine)
            # GNU tar ends the names of directories in a slash; blanks stand before a name.
            mine, value = mine.lstrip(" "), value.lstrip(" ")
            same = mine == value or member["kind"] == "dir" and mine.rstrip("/") == value.rstrip("/")
        elif field == "time" and mine.startswith("-") and not mine.endswith(".000000000"):
            # GNU tar shows -1.25 as 0.25 after -1.
            same = True
        elif field == "time":
            same = seconds(mine) == (value.rstrip("0").rstrip(".") if "." in value else value)
        else:
            same = mine == value
        if not same:
            found.append(field)
    return found


def seconds(text):
    """A time as GNU tar shows it."""
    whole, nanos = text.split(".")
    at = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=int(whole))
    return (at.strftime("%Y-%m-%d %H:%M:%S.") + nanos).rstrip("0").rstrip(".")


def has_global(path):
    with open(path, "rb") as file:
        data = file.read()
    return any(data[at + 156:at + 157] == b"g" for at in range(0, len(data), 512))


def verdict(ours, of_go, of_gnu, is_global, is_cut):
    """What one tar shows."""
    (mine, end), (go, go_end), (other, gnu_end) = ours, of_go, of_gnu
    seen = set()
    for at, member in enumerate(mine):
        by_go = at < len(go) and [f for f, a, b in zip(FIELDS + ["digest"], member, go[at]) if a != b]
        by_gnu = at < len(other) and differing(member, other[at])
        if by_go == [] and (by_gnu == [] or by_gnu is False):
            continue
        if by_go is False and by_gnu is False:
            return "WRONG: a member that neither has: %s" % member
        if by_gnu == []:
            if by_go and not (is_global and set(by_go) <= GLOBAL):
                return "WRONG: Go differs in %s: %s, %s" % (by_go, member, go[at])
            seen.add("as GNU tar: " + ("a global header counts" if by_go else "Go refuses it"))
            continue
        if by_go == []:
            seen.add("as Go: GNU tar differs in " + ", ".join(by_gnu))
            continue
        if by_go and by_gnu and not set(by_go) & set(by_gnu):
            seen.add("each field as one of them")
            continue
        return "WRONG: both differ, Go in %s, GNU tar in %s: %s" % (by_go, by_gnu, member)
    if end == "ok":
        more = max(len(go), len(other)) > len(mine)
        if more:
            return "WRONG: it ends without an error, and others go on"
        # A field of the header that a record overrides is not read.
        if go_end != "ok" and gnu_end != "ok" and is_cut:
            # All of the last body is there, and strata wants no more.
            seen.add("the last body is not padded")
        elif go_end != "ok" and gnu_end != "ok" and not re.search("(time|uid|gid)_t", gnu_end):
            return "WRONG: both refuse it: %s; %s" % (go_end, gnu_end)
    elif not any(known in end for known in REFUSED):
        return "WRONG: refused for another reason: " + end
    elif go_end == "ok" or gnu_end == "ok":
        seen.add("refused: " + next(known for known in REFUSED if known in end))
    return "; ".join(sorted(seen)) or "the same"


def main():
    parser = argparse.ArgumentParser(prog="scripts/differential")
    parser.add_argument("--strata", required=True)
    parser.add_argument("--go", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tars", type=int, default=2000)
    args = parser.parse_args()
    os.chdir(args.work)
    # What is there already was learnt elsewhere.
    names = sorted(os.listdir("."))
    for seed in range(args.seed, args.seed + args.tars):
        names.append("%d.tar" % seed)
        with open(names[-1], "wb") as file:
            file.write(tars.archive(seed))
    ours, go = [lists(subprocess.run([program, *names], capture_output=True, check=True,
                                     text=True, errors="replace").stdout.splitlines())
                for program in (args.strata, args.go)]
    counts, wrong = collections.Counter(), 0
    for name in names:
        found = verdict(ours[name], go[name], gnu(name), has_global(name),
                        os.path.getsize(name) % 512 != 0)
        if found.startswith("WRONG"):
            wrong += 1
            print("%s: %s" % (name.removesuffix(".tar"), found))
        counts[found.split(":")[0] if found.startswith("WRONG") else found] += 1
    for found, count in counts.most_common():
        print("%6d %s" % (count, found))
    print("%d tars with %d members, %d wrong" % (
        len(names), sum(len(members) for members, _ in ours.values()), wrong))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
