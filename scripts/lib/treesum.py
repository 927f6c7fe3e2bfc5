#!/usr/bin/env python3
"""Prints every fact about every entry of a directory tree, one JSON object a line.

usage: treesum.py [--ignore FIELD]... [--ignore-xattr PREFIX]... DIR

Lines are sorted by the raw bytes of the path, so that two trees can be compared
with diff(1). Symlinks are never followed. Bytes that are not UTF-8, control
characters and `%` are written as %XX, so a path stays one printable line and can
be decoded exactly.

Fields: path ("." is DIR itself), type, mode (octal), uid, gid, mtime_ns,
        size (regular files and symlinks), sha256 (regular files),
        target (symlinks), rdev (devices, "major:minor"),
        nlink and links (all but directories; `links` is the smallest path of
        the same inode, present where this tree holds more than one),
        xattrs (name -> value in hex).
Needs root to see trusted.* attributes and files that are not readable.
"""
import argparse
import hashlib
import json
import os
import stat
import sys

TYPES = {
    stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink", stat.S_IFCHR: "char",
    stat.S_IFBLK: "block", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket",
}


def escape(raw):
    text = raw.replace(b"%", b"%25").decode("utf-8", "surrogateescape")
    out = []
    for ch in text:
        code = ord(ch)
        if 0xDC80 <= code <= 0xDCFF:
            out.append("%%%02X" % (code - 0xDC00))
        elif code < 0x20 or code == 0x7F:
            out.append("%%%02X" % code)
        else:
            out.append(ch)
    return "".join(out)


def walk(root):
    """Yields (path relative to root, path to open) of every entry, unsorted."""
    todo = [b""]
    yield b".", root
    while todo:
        rel = todo.pop()
        with os.scandir(os.path.join(root, rel) if rel else root) as entries:
            for entry in entries:
                child = rel + b"/" + entry.name if rel else entry.name
                yield child, root + b"/" + child
                if entry.is_dir(follow_symlinks=False):
                    todo.append(child)


def digest(path):
    h = hashlib.sha256()
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while chunk := os.read(fd, 1 << 20):
            h.update(chunk)
    finally:
        os.close(fd)
    return h.hexdigest()


def describe(rel, path, ignore, ignore_xattrs):
    st = os.lstat(path)
    kind = stat.S_IFMT(st.st_mode)
    e = {"path": escape(rel), "type": TYPES[kind], "mode": "%04o" % stat.S_IMODE(st.st_mode),
         "uid": st.st_uid, "gid": st.st_gid, "mtime_ns": st.st_mtime_ns}
    if kind in (stat.S_IFREG, stat.S_IFLNK):
        e["size"] = st.st_size
    if kind == stat.S_IFREG and "sha256" not in ignore:
        e["sha256"] = digest(path)
    if kind == stat.S_IFLNK:
        e["target"] = escape(os.readlink(path))
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        e["rdev"] = "%d:%d" % (os.major(st.st_rdev), os.minor(st.st_rdev))
    if kind != stat.S_IFDIR:
        e["nlink"] = st.st_nlink
    if "xattrs" not in ignore:
        xattrs = {}
        for name in os.listxattr(path, follow_symlinks=False):
            if not name.startswith(tuple(ignore_xattrs)):
                xattrs[escape(os.fsencode(name))] = os.getxattr(path, name, follow_symlinks=False).hex()
        e["xattrs"] = dict(sorted(xattrs.items()))
    return e, (st.st_dev, st.st_ino)


def main():
    args = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1][7:])
    args.add_argument("--ignore", action="append", default=[], metavar="FIELD")
    args.add_argument("--ignore-xattr", action="append", default=[], metavar="PREFIX")
    args.add_argument("dir")
    args = args.parse_args()

    entries, first = [], {}
    for rel, path in sorted(walk(os.fsencode(args.dir.rstrip("/") or "/"))):
        entry, inode = describe(rel, path, args.ignore, args.ignore_xattr)
        if entry["type"] != "dir":
            first.setdefault(inode, []).append(entry)
        entries.append(entry)
    for group in first.values():
        if len(group) > 1:
            for entry in group:
                entry["links"] = group[0]["path"]
    out = sys.stdout
    for entry in entries:
        for field in args.ignore:
            entry.pop(field, None)
        out.write(json.dumps(entry, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    # Names are escaped, but UTF-8 ones stay as they are: do not depend on the locale.
    sys.stdout.reconfigure(encoding="utf-8")
    main()
