#!/usr/bin/env python3
"""Writes to files that are open for reading, and checks where the bytes went.

usage: writethrough.py STRATA-OVERLAY root|user OPTIONS

Works in a new directory in the current one, as the user that runs it. It holds an O_RDONLY
descriptor and a MAP_SHARED mapping of a lower's file while it opens the file O_RDWR and writes it,
by write(2) and by a mapping: both must show the new bytes, and the lower the old ones.
"""
import mmap
import os
import subprocess
import sys
import tempfile

SIZE = 3 * mmap.PAGESIZE


def attempt(lower, merged, how):
    path = merged + "/" + how
    before = open(lower + "/" + how, "rb").read()
    stat = os.stat(lower + "/" + how)
    old = os.open(path, os.O_RDONLY)
    shared = mmap.mmap(old, SIZE, mmap.MAP_SHARED, mmap.PROT_READ)
    assert shared[:] == before and os.pread(old, SIZE, 0) == before
    new = os.open(path, os.O_RDWR)
    want = bytearray(before)
    for at in (0, mmap.PAGESIZE + 5):
        want[at:at + 4] = b"NEW!"
        if how == "write":
            os.pwrite(new, b"NEW!", at)
        else:
            with mmap.mmap(new, SIZE, mmap.MAP_SHARED) as mapped:
                mapped[at:at + 4] = b"NEW!"
                mapped.flush()
        for view, seen in (("old descriptor", os.pread(old, SIZE, 0)), ("old mapping", shared[:]),
                           ("new descriptor", os.pread(new, SIZE, 0))):
            assert seen == want, "%s: the %s does not see what is written" % (how, view)
    os.fsync(new)
    shared.close()
    os.close(old)
    os.close(new)
    assert open(path, "rb").read() == want, how + ": a later open sees something else"
    assert open(lower + "/" + how, "rb").read() == before, how + ": the LOWER was written"
    after = os.stat(lower + "/" + how)
    assert (stat.st_mtime_ns, stat.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns), how


def main(overlay, who, options):
    assert (os.geteuid() == 0) == (who == "root"), "not run as " + who
    overlay = os.path.abspath(overlay)
    with tempfile.TemporaryDirectory(dir=".") as top:
        top = os.path.abspath(top)
        for name in ("lower", "upper", "work", "merged"):
            os.mkdir(os.path.join(top, name))
        for how in ("write", "map"):
            with open(top + "/lower/" + how, "wb") as file:
                file.write(b"old\n" * (SIZE // 4))
        given = "lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work".format(top)
        subprocess.run([overlay, "-o", given + ("," + options if options else ""),
                        top + "/merged"], check=True)
        try:
            attempt(top + "/lower", top + "/merged", "write")
            attempt(top + "/lower", top + "/merged", "map")
        finally:
            unmount = ["umount"] if who == "root" else ["fusermount3", "-u"]
            subprocess.run([*unmount, top + "/merged"], check=True)
    print("as %s%s: no write reached the lower" % (who, options and " with " + options))


if __name__ == "__main__":
    main(*sys.argv[1:])
