#!/usr/bin/python3
"""Lists what the diff on standard input says, one member a line, sorted: to compare diffs of one
change that different programs have made. Paths that are arguments are left out. Times of directories are left out, for each is changed
when a container with it is started; so are attributes that only overlayfs reads.
"""
import hashlib
import json
import sys
import tarfile

members = []
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|*") as tar:
    for member in tar:
        name = member.name.strip("/")
        if name in ("", ".", *sys.argv[1:]):
            continue
        body = tar.extractfile(member) if member.isreg() else None
        xattrs = {key: value for key, value in member.pax_headers.items()
                  if key.startswith("SCHILY.xattr.") and ".overlay." not in key}
        members.append({
            "path": name, "type": member.type.decode(), "mode": oct(member.mode & 0o7777),
            "uid": member.uid, "gid": member.gid, "link": member.linkname, "xattrs": xattrs,
            "time": None if member.isdir() or "/.wh." in f"/{name}" else int(member.mtime),
            "body": hashlib.sha256(body.read()).hexdigest() if body else None,
        })
for member in sorted(members, key=lambda member: member["path"]):
    print(json.dumps(member))
