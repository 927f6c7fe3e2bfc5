#!/usr/bin/env python3
"""Compares two trees printed by treesum.py and classifies every difference.

usage: comparetrees.py --facts FACTS.json LEFTNAME=LEFT.jsonl RIGHTNAME=RIGHT.jsonl
       comparetrees.py --refusal SIDE --facts FACTS.json ERRORFILE

The names say who made a tree: `overlay` (the kernel's overlayfs over layers
unpacked into containers-storage), `umoci`, or `strata`. A difference is `expected`
when a rule below accounts for exactly this value on exactly this side, and
UNEXPECTED otherwise; exit status 1 when there is an unexpected one.
With --refusal it checks whether the error of SIDE in ERRORFILE is an expected one.
"""
import collections
import json
import re
import sys

# ------------------------------------------------------------------ the rules
# (name, side that deviates, why, test). test(field, path, own, other, facts) sees
# the deviating side's entry and the other's. Add a rule only for a difference that
# was seen and understood, and make it as narrow as the reason.


def new_directory(field, own, mode):
    made = {"mode": mode, "uid": 0, "gid": 0, "xattrs": {}}
    return field == "mtime_ns" or (field in made and own[field] == made[field])


def root_directory(field, path, own, other, facts):
    return path == "." and new_directory(field, own, "0555")


def implicit_directory(field, path, own, other, facts):
    return path in facts["implicit"] and own["type"] == "dir" and new_directory(field, own, "0755")


def unknown_time(field, path, own, other, facts):
    return field == "mtime_ns" and path in facts["noentry"]


def negative_time(field, path, own, other, facts):
    return field == "mtime_ns" and own[field] == 0 and other[field] < 0


def empty_xattr(field, path, own, other, facts):
    if field != "xattrs" or path not in facts["emptyxattr"]:
        return False
    return own[field] == {k: v for k, v in other[field].items() if v}


def hidden_names(field, path, own, other, facts):
    # The backing file also has the names that a later layer hides; the other side
    # must count exactly the visible names.
    return field == "nlink" and own[field] > other[field] == other["names"]


RULES = [
    ("names hidden by later layers", "overlay", "the kernel shows the backing inode's link count, which counts hidden names too", hidden_names),
    ("root directory", "overlay", "containers-storage passes over a layer's entry for the root and makes its own, 0555", root_directory),
    ("implicit directory", "overlay",
     "the topmost layer has no entry for this directory; containers-storage makes a new one there, which hides the lower's metadata",
     implicit_directory),
    ("no entry anywhere", "umoci", "no layer says when this directory was changed; umoci leaves the time of unpacking", unknown_time),
    ("time before 1970", "overlay", "containers-storage sets times before 1970 to 0", negative_time),
    ("empty xattr", "overlay", "Go's tar reader takes a PAX record with an empty value for a deleted one", empty_xattr),
    ("empty xattr", "umoci", "Go's tar reader takes a PAX record with an empty value for a deleted one", empty_xattr),
]

# (name, side, why, pattern of the error message, test(facts))
REFUSALS = [
    ("hard link to a lower layer", "overlay", "containers-storage unpacks each layer alone, the link's target is not there",
     r"processing tar file\(.*no such file or directory\)", lambda facts: bool(facts["lowerlinks"])),
    ("GNU sparse", "overlay", "containers-storage does not know tar entries of type `S`",
     r"unhandled tar header type 83", lambda facts: bool(facts["gnusparse"])),
    ("GNU sparse", "umoci", "umoci does not know tar entries of type `S`",
     r"unknown typeflag '\\x53'", lambda facts: bool(facts["gnusparse"])),
]


# ------------------------------------------------------------------ the machinery
def load(path):
    with open(path, encoding="utf-8") as f:
        entries = {e["path"]: e for e in map(json.loads, f)}
    groups = collections.Counter(e["links"] for e in entries.values() if "links" in e)
    for e in entries.values():
        # Not a fact of its own (`links` has the same), only a help for the rules.
        e["names"] = groups.get(e.get("links"), 1)
    return entries


def explain(field, path, sides, facts):
    """sides: two (name, entry) pairs. The name and reason of the rule that fits."""
    for (own_name, own), (_, other) in (sides, sides[::-1]):
        for name, side, why, test in RULES:
            if side == own_name and test(field, path, own, other, facts):
                return f"{own_name}: {name}", why
    return None


def differences(left, right):
    """Yields (path, field, left entry or None, right entry or None)."""
    for path in sorted(left.keys() | right.keys()):
        a, b = left.get(path), right.get(path)
        if a is None or b is None:
            yield path, "present", a, b
        elif a["type"] != b["type"]:
            yield path, "type", a, b
        else:
            for field in sorted((a.keys() | b.keys()) - {"names"}):
                if a.get(field) != b.get(field):
                    yield path, field, a, b


def show(entry, field):
    if entry is None:
        return "absent"
    if field == "present":
        return entry["type"]
    text = json.dumps(entry.get(field), ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "..."


def compare(left_name, left, right_name, right, facts):
    expected, unexpected, total = collections.OrderedDict(), [], 0
    for path, field, a, b in differences(left, right):
        total += 1
        why = None
        if a is not None and b is not None and field not in ("present", "type"):
            why = explain(field, path, ((left_name, a), (right_name, b)), facts)
        if why:
            expected.setdefault(why, []).append((path, field))
        else:
            unexpected.append((path, field, a, b))
    print(f"  {left_name} - {right_name}: {len(left)} and {len(right)} entries, "
          f"{total - len(unexpected)} differences expected, {len(unexpected)} UNEXPECTED")
    for (name, why), found in expected.items():
        some = ", ".join(f"{p} {f}" for p, f in found[:3]) + (", ..." if len(found) > 3 else "")
        print(f"    expected {len(found):5}  {name}: {why} ({some})")
    for path, field, a, b in unexpected[:50]:
        print(f"    UNEXPECTED  {path}  {field}: {left_name} {show(a, field)}, {right_name} {show(b, field)}")
    if len(unexpected) > 50:
        print(f"    UNEXPECTED  and {len(unexpected) - 50} more")
    return bool(unexpected)


def refusal(side, error, facts):
    last = error.strip().splitlines()[-1] if error.strip() else "no message"
    for name, rule_side, why, pattern, test in REFUSALS:
        if side == rule_side and re.search(pattern, error) and test(facts):
            print(f"  {side}: expected refusal: {name}: {why}")
            return False
    print(f"  {side}: UNEXPECTED failure: {last}")
    return True


def main(argv):
    args = argv[1:]
    side = None
    if args[:1] == ["--refusal"]:
        side, args = args[1], args[2:]
    if args[:1] != ["--facts"] or len(args) != (3 if side else 4):
        raise SystemExit(__doc__)
    with open(args[1]) as f:
        facts = json.load(f)
    facts = {key: set(value) for key, value in facts.items()}
    if side:
        with open(args[2], errors="replace") as f:
            return refusal(side, f.read(), facts)
    (left_name, left), (right_name, right) = (a.split("=", 1) for a in args[2:])
    return compare(left_name, load(left), right_name, load(right), facts)


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    sys.exit(main(sys.argv))
