"""Random tars for `scripts/differential`: members as old and new programs write them, and as none does.

The model: a header is a block of 512 bytes (POSIX ustar, GNU, or the one before both); before it may
stand what extends it: a pax header (x), a global one (g), GNU's long names (L, K). `archive` makes a
whole tar of them from a seed.
"""
import random

NAMES = [b"a", b"dir/", b"dir/b", b"dir/c.txt", b"./d", b"/e", b"x//y", b"..", b"../f", b"n" * 99,
         b"n" * 100, b"p" * 90 + b"/" + b"q" * 60, b"\xc3\xa9", b"\xff\xfe", b"sp ace", b"tab\tname",
         b"L" * 300, b"dir/.wh.b", b"dir/.wh..wh..opq", b"."]
KINDS = b"0000001225\x00\x00346570"


def octal(rng, value, width):
    """A number as programs write it: with NUL, with blanks, without an end, in base 256."""
    way = rng.randrange(9)
    digits = b"%o" % value
    if len(digits) > width - 1 or way == 0 and width > 8:
        raw = bytearray(value.to_bytes(width, "big"))
        raw[0] |= 0x80
        return bytes(raw)
    if way == 1:
        return digits.rjust(width - 1) + b" "
    if way == 2:
        return digits.rjust(width - 2, b"0") + b" \0"
    if way == 3 and len(digits) < width:
        return digits.ljust(width, b" ")
    if way == 4:
        return digits.rjust(width, b"0")
    if way == 5 and value == 0:
        return bytes(width)
    return digits.rjust(width - 1, b"0") + b"\0"


def header(rng, kind, name, size, magic, link=b""):
    block = bytearray(512)
    prefix = b""
    if magic == "ustar" and len(name) > 100:
        at = name.rfind(b"/", 0, 156)
        if 0 < at and len(name) - at - 1 <= 100:
            prefix, name = name[:at], name[at + 1:]
    block[0:100] = name[:100].ljust(100, b"\0")
    block[100:108] = octal(rng, rng.choice([0o644, 0o755, 0o4755, 0o1777, 0o100644, 0]), 8)
    block[108:116] = octal(rng, rng.choice([0, 1000, 65534, 2097151]), 8)
    block[116:124] = octal(rng, rng.choice([0, 1000, 65534]), 8)
    block[124:136] = octal(rng, size, 12)
    block[136:148] = octal(rng, rng.choice([0, 1, 10 ** 9, 2 ** 33 - 1]), 12)
    block[156] = kind
    block[157:257] = link[:100].ljust(100, b"\0")
    if magic == "ustar":
        block[257:265] = b"ustar\x0000"
        block[345:500] = prefix.ljust(155, b"\0")
    elif magic == "gnu":
        block[257:265] = b"ustar  \0"
    if magic != "v7":
        block[265:269], block[297:301] = b"root", b"root"
        if kind in b"34":
            block[329:337] = octal(rng, rng.choice([0, 1, 259]), 8)
            block[337:345] = octal(rng, rng.choice([0, 3, 255]), 8)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(body):
    return body + bytes(-len(body) % 512)


def record(key, value):
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while length != len(rest) + len(b"%d" % length):
        length = len(rest) + len(b"%d" % length)
    return b"%d" % length + rest


def pax_records(rng, size, is_global):
    records, seen = [], set()
    for _ in range(rng.randrange(1, 4)):
        key = rng.choice([b"path", b"linkpath", b"uid", b"gid", b"mtime", b"size", b"comment",
                          b"SCHILY.xattr.user.x", b"atime", b"uname", b"hdrcharset", b"LIBARCHIVE.x"])
        value = {
            b"path": rng.choice(NAMES), b"linkpath": rng.choice(NAMES),
            b"uid": rng.choice([b"0", b"1000", b"4294967294", b"70000"]),
            b"gid": rng.choice([b"0", b"100000"]),
            b"mtime": rng.choice([b"0", b"1.5", b"-1.25", b"1000000000.123456789", b"7.",
                                  b"1.1234567891", b"-5"]),
            b"size": b"%d" % size, b"comment": b"no\nthing=1", b"hdrcharset": b"BINARY",
            b"atime": b"12.5", b"uname": b"someone",
        }.get(key, rng.choice([b"text", b"\0\1\2", b"1"]))
        # A global path is refused; of two records of a global header GNU tar takes the first.
        if is_global and (key in (b"path", b"linkpath", b"size") or key in seen):
            continue
        seen.add(key)
        records.append(record(key, value))
    return b"".join(records)


def archive(seed):
    rng = random.Random(seed)
    out, has_global = [], False
    for _ in range(rng.randrange(1, 6)):
        magic = rng.choice(["ustar", "ustar", "gnu", "v7"])
        kind = rng.choice(KINDS)
        name, link = rng.choice(NAMES), rng.choice(NAMES) if kind in b"12" else b""
        body = rng.randbytes(rng.choice([0, 1, 511, 512, 513, 2000])) if kind in b"07\0" else b""
        if kind == ord("5") and not name.endswith(b"/") and rng.random() < 0.5:
            name += b"/"
        if len(name) > 100 and magic == "gnu":
            out += [header(rng, ord("L"), b"././@LongLink", len(name) + 1, "gnu"), padded(name + b"\0")]
        if len(link) > 100 and magic == "gnu":
            out += [header(rng, ord("K"), b"././@LongLink", len(link) + 1, "gnu"), padded(link + b"\0")]
        if magic == "ustar" and rng.random() < 0.5:
            # Global headers add up (POSIX); GNU tar forgets the first.
            is_global = rng.random() < 0.15 and not has_global
            has_global = has_global or is_global
            records = pax_records(rng, len(body), is_global)
            if records:
                out += [header(rng, ord("g" if is_global else "x"), b"PaxHeaders/x", len(records),
                               "ustar"), padded(records)]
        out += [header(rng, kind, name, len(body), magic, link), padded(body)]
    out.append(bytes(1024))
    data = bytearray(b"".join(out))
    if rng.random() < 0.25:
        spoil(rng, data)
    return bytes(data)


def spoil(rng, data):
    """Changes a few bytes of one header, and mends its sum most of the time."""
    blocks = [at for at in range(0, len(data) - 1024, 512) if bytes(data[at + 257:at + 262]) == b"ustar"]
    if not blocks:
        return
    at = rng.choice(blocks)
    for _ in range(rng.randrange(1, 3)):
        data[at + rng.choice([0, 100, 108, 116, 124, 130, 136, 147, 156, 257, 263, 345])] = rng.choice(
            b"\0 07/x\xff\x80")
    if rng.random() < 0.8:
        data[at + 148:at + 156] = b" " * 8
        data[at + 148:at + 156] = b"%06o\0 " % sum(data[at:at + 512])
