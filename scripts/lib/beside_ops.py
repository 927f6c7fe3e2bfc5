"""Operations that run in the same way on two mounted trees: by several users, on names and open
files, on times, attributes, ACLs and through mappings.

Invariant: an operation is a list of plain values, `[NAME, USER, ARGUMENT...]`. Its result has
nothing in which two correct unions may differ: no inode numbers, no current times.
"""
import contextlib
import ctypes
import errno
import mmap
import os
import stat
import struct
import zlib

LIBC = ctypes.CDLL(None, use_errno=True)
# User, group, further groups.
USERS = [(0, 0, []), (1000, 1000, [2000]), (1001, 1001, [2000, 2001]), (1002, 2000, [])]
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
CAPABILITY = "security.capability"
# Revision 2 (linux/capability.h), cap_net_raw: permitted and effective.
RAW = bytes([1, 0, 0, 2, 0, 32] + [0] * 14)
NAMES = ["f", "g", "h", "d", "e"]
XATTRS = ["user.one", "user.two", "trusted.one", "trusted.overlay.opaque", "user.overlay.opaque"]
SIZES = [0, 1, 5, 100, 4095, 4096, 5000, 9000]


@contextlib.contextmanager
def user(number):
    uid, gid, groups = USERS[number]
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups([])


def acl(seed):
    """An ACL of a further user or group, or of both, with bits that the seed chooses."""
    bits = [seed >> shift & 7 for shift in range(0, 15, 3)]
    none = 0xFFFFFFFF
    entries = [(1, bits[0], none), (4, bits[2], none), (16, bits[3], none), (32, bits[4], none)]
    if seed >> 15 & 1 or not seed >> 16 & 1:
        entries.append((2, bits[1], USERS[1 + (seed >> 17) % 3][0]))
    if seed >> 16 & 1:
        entries.append((8, bits[1], (2000, 2001)[seed >> 18 & 1]))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in sorted(entries))


class Hands:
    """One side: the operations on it, and the files that are held open."""

    def __init__(self, root, since, settles=False):
        self.root = root
        self.settles = settles
        self.since = since
        self.held = {}

    def run(self, operation):
        name, who, *arguments = operation
        try:
            with user(who):
                return getattr(self, "op_" + name)(*arguments)
        except OSError as error:
            return errno.errorcode[error.errno]

    def let_go(self):
        for fd in self.held.values():
            os.close(fd)
        self.held = {}

    def at(self, path):
        return self.root + "/" + path

    def time(self, nanoseconds):
        return "now" if nanoseconds >= self.since else nanoseconds

    def opened(self, path, flags, mode=0o644):
        """When a metacopy is opened for writing, the kernel's overlayfs changes its times and strata
        does not. Where there may be a metacopy, this makes the times equal; a write changes them."""
        fd = os.open(self.at(path), flags | os.O_NONBLOCK, mode)
        if self.settles and flags & os.O_ACCMODE:
            who = os.geteuid()
            os.seteuid(0)
            os.utime(fd, ns=(10 ** 18 + 11, 10 ** 18 + 11))
            os.seteuid(who)
        return fd

    @contextlib.contextmanager
    def open(self, path, flags, mode=0o644):
        fd = self.opened(path, flags, mode)
        try:
            yield fd
        finally:
            os.close(fd)

    # Names.
    def op_mkdir(self, path, mode, umask):
        before = os.umask(umask)
        try:
            os.mkdir(self.at(path), mode)
        finally:
            os.umask(before)

    def op_create(self, path, mode, umask, size):
        before = os.umask(umask)
        try:
            with self.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode) as fd:
                os.write(fd, b"new" * size)
        finally:
            os.umask(before)

    def op_mknod(self, path, kind, device):
        os.mknod(self.at(path), kind | 0o660, os.makedev(*device))

    def op_symlink(self, path, target):
        os.symlink(target, self.at(path))

    def op_link(self, path, new):
        os.link(self.at(path), self.at(new), follow_symlinks=False)

    def op_unlink(self, path):
        os.unlink(self.at(path))

    def op_rmdir(self, path):
        os.rmdir(self.at(path))

    def op_rename(self, path, new, flags):
        # With userxattr a symlink that was copied up has another number at the next lookup.
        if path == new:
            return "itself"
        old, new = os.fsencode(self.at(path)), os.fsencode(self.at(new))
        if LIBC.renameat2(-100, old, -100, new, flags):
            raise OSError(ctypes.get_errno(), "renameat2")

    # Looking.
    def op_read(self, path):
        with self.open(path, os.O_RDONLY) as fd:
            return hash_of(os.read(fd, 1 << 16))

    def op_read_mapped(self, path):
        with self.open(path, os.O_RDONLY) as fd:
            found = os.fstat(fd)
            size = found.st_size if stat.S_ISREG(found.st_mode) else 0
            if size == 0:
                return hash_of(os.read(fd, 1))
            with mmap.mmap(fd, size, prot=mmap.PROT_READ) as shown:
                return hash_of(shown[:])

    def op_list(self, path):
        # Where two lowers merge into one directory the kernel lists whiteouts that hide nothing.
        names = os.listdir(self.at(path))
        return sorted(name for name in names if os.path.lexists(self.at(path) + "/" + name))

    def op_stat(self, path):
        return self.facts(os.lstat(self.at(path)))

    def op_access(self, path, mode):
        return os.access(self.at(path), mode, effective_ids=True)

    def op_get_xattr(self, path, name):
        return os.getxattr(self.at(path), name, follow_symlinks=False).hex()

    def facts(self, found):
        facts = ["%o" % found.st_mode, found.st_uid, found.st_gid, self.time(found.st_mtime_ns)]
        if not stat.S_ISDIR(found.st_mode):
            facts += [found.st_nlink, found.st_rdev]
        if stat.S_ISREG(found.st_mode):
            facts += [found.st_size, self.time(found.st_atime_ns)]
        return facts

    # Content.
    def op_write(self, path, at, size, flags):
        with self.open(path, os.O_WRONLY | flags) as fd:
            os.pwrite(fd, bytes([at % 251]) * size, at)

    def op_truncate(self, path, size):
        # Whether the time changes when the size does not depends on the file system.
        found = os.stat(self.at(path))
        if stat.S_ISREG(found.st_mode) and found.st_size == size:
            return "no change"
        os.truncate(self.at(path), size)
        return None

    def op_write_mapped(self, path, at, sync):
        with self.open(path, os.O_RDWR) as fd:
            self.map(fd, at, sync)
        return self.op_stat(path)

    def map(self, fd, at, sync):
        size = os.fstat(fd).st_size
        if size == 0:
            return
        with mmap.mmap(fd, size) as shown:
            shown[at % size] = at % 251
            if sync:
                shown.flush()
        if sync > 1:
            os.fsync(fd)

    def op_allocate(self, path, at, size, mode):
        with self.open(path, os.O_RDWR) as fd:
            at, size = ctypes.c_long(at), ctypes.c_long(size)
            if LIBC.fallocate(fd, mode, at, size):
                raise OSError(ctypes.get_errno(), "fallocate")

    def op_copy_range(self, path, other):
        with self.open(path, os.O_RDONLY) as source, self.open(other, os.O_WRONLY) as target:
            return os.copy_file_range(source, target, 5000)

    # Metadata.
    def op_chmod(self, path, mode):
        os.chmod(self.at(path), mode)

    def op_chown(self, path, uid, gid):
        os.chown(self.at(path), uid, gid, follow_symlinks=False)

    def op_utimes(self, path, seconds):
        """Both times, the access time before the other by as many seconds."""
        accessed, modified = 10 ** 18 - seconds * 10 ** 9 + 7, 10 ** 18 + 9
        os.utime(self.at(path), ns=(accessed, modified), follow_symlinks=False)

    def op_utimes_now(self, path):
        os.utime(self.at(path), follow_symlinks=False)

    def op_set_xattr(self, path, name, value, flags):
        os.setxattr(self.at(path), name, value.encode(), flags, follow_symlinks=False)

    def op_remove_xattr(self, path, name):
        os.removexattr(self.at(path), name, follow_symlinks=False)

    def op_set_acl(self, path, name, seed):
        os.setxattr(self.at(path), name, acl(seed), follow_symlinks=False)

    def op_set_capability(self, path):
        os.setxattr(self.at(path), CAPABILITY, RAW, follow_symlinks=False)

    # Open files. Reading is left out unless the file is open for writing: the kernel still
    # shows the content from before the copy-up.
    def op_hold(self, slot, path, flags):
        if slot in self.held:
            os.close(self.held.pop(slot))
        fd = self.opened(path, flags)
        # For a removed pipe overlayfs shows the links that it had.
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            return "no file"
        self.held[slot] = fd
        return None

    def op_held(self, slot, what, *arguments):
        if slot not in self.held:
            return "not held"
        fd = self.held[slot]
        return getattr(self, "held_" + what)(fd, *arguments)

    def held_write(self, fd, at, size):
        os.pwrite(fd, b"h" * size, at)

    def held_read(self, fd):
        return hash_of(os.pread(fd, 1 << 16, 0))

    def held_map(self, fd, at, sync):
        self.map(fd, at, sync)
        return self.facts(os.fstat(fd))

    def held_truncate(self, fd, size):
        os.ftruncate(fd, size)

    def held_chmod(self, fd, mode):
        os.fchmod(fd, mode)

    def held_chown(self, fd, uid, gid):
        os.fchown(fd, uid, gid)

    def held_stat(self, fd):
        return self.facts(os.fstat(fd))

    def held_set_acl(self, fd, seed):
        os.setxattr(fd, ACCESS, acl(seed))

    def held_close(self, fd):
        for slot in [slot for slot, held in self.held.items() if held == fd]:
            os.close(self.held.pop(slot))


def hash_of(content):
    return "%d bytes %08x" % (len(content), zlib.crc32(content))


def listing(root):
    """Every path below, and its type from the directory; reading changes no time."""
    found, todo = [], [""]
    while todo:
        where = todo.pop()
        fd = os.open(root + "/" + where, os.O_RDONLY | os.O_DIRECTORY | os.O_NOATIME)
        try:
            with os.scandir(fd) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    path = (where + "/" + entry.name).lstrip("/")
                    is_dir = entry.is_dir(follow_symlinks=False)
                    found.append((path, is_dir, entry.inode()))
                    if is_dir:
                        todo.append(path)
        finally:
            os.close(fd)
    return found


def shown(hands, links=True):
    """The whole tree as lines, by path, and the number of each node. `links`: also say which
    names are one inode."""
    root, lines, names, numbers = hands.root, {}, {}, {}
    for path, _, number in [("", True, None), *listing(root)]:
        at = root + "/" + path if path else root
        try:
            found = os.lstat(at)
        except FileNotFoundError:
            continue
        line = ["%s=%s" % fact for fact in zip(
            ["mode", "uid", "gid", "mtime", "links", "device", "size", "atime"],
            hands.facts(found))]
        for name in sorted(os.listxattr(at, follow_symlinks=False)):
            line.append("%s=%s" % (name, os.getxattr(at, name, follow_symlinks=False).hex()))
        if stat.S_ISREG(found.st_mode):
            fd = os.open(at, os.O_RDONLY | os.O_NOATIME)
            line.append(hash_of(os.read(fd, 1 << 17)))
            os.close(fd)
        elif stat.S_ISLNK(found.st_mode):
            line.append("-> " + os.readlink(at))
        # The first of its names identifies the inode.
        if links:
            line.append("is " + names.setdefault((found.st_dev, found.st_ino), path))
        if number not in (None, found.st_ino) and root.endswith("strata"):
            line.append("listed as %d, not %d" % (number, found.st_ino))
        lines[path] = " ".join(line)
        numbers[path] = found.st_ino
    return lines, numbers


class Maker:
    """Draws operations, most of them on existing names. Where reading changes times, `most` leaves
    the set-id bits out: files with these are read through the page cache, and strata sees only
    the first read."""

    def __init__(self, rng, most):
        self.rng = rng
        self.most = most
        self.dirs, self.files = [""], []

    def look(self, root):
        self.dirs, self.files = [""], []
        for path, is_dir, _ in listing(root):
            (self.dirs if is_dir else self.files).append(path)

    def new(self):
        where = self.rng.choice(self.dirs)
        return (where + "/" + self.rng.choice(NAMES)).lstrip("/")

    def file(self):
        return self.rng.choice(self.files) if self.files and self.rng.random() < 0.9 else self.new()

    def any(self):
        return self.file() if self.rng.random() < 0.6 else self.rng.choice(self.dirs) or "."

    def who(self):
        return self.rng.choice([0, 0, 0, 1, 1, 2, 3])

    def owner(self):
        """A user and a group, at least one of them: FUSE does not report a chown to neither."""
        uid = self.rng.choice([-1, 0, 1000, 1001, 1002])
        return uid, self.rng.choice([-1, 0, 1000, 2000, 2001] if uid >= 0 else [0, 1000, 2000])

    def mode(self):
        return self.most & self.rng.choice([
            0o755, 0o644, 0o600, 0o666, 0o777, 0o4755, 0o2755, 0o6666, 0o2664, 0o1777, 0o2777, 0,
            self.rng.randrange(0o10000)])

    def bits(self):
        return self.rng.getrandbits(19) | (0 if self.rng.random() < 0.3 else 0o444)

    def operation(self):
        rng, number = self.rng, self.rng.randrange
        flags = [os.O_APPEND, 0, 0, os.O_TRUNC, os.O_SYNC]
        # tar leaves sockets out.
        kinds = [(stat.S_IFIFO, (0, 0)), (stat.S_IFCHR, (1, 3)), (stat.S_IFREG, (0, 0))]
        targets = ["f", "../f", "d/g", "nothing", "."]
        makes = [
            (4, lambda: ["mkdir", self.new(), self.mode(), rng.choice([0, 0o22, 0o77])]),
            (5, lambda: ["create", self.new(), self.mode(), rng.choice([0, 0o22, 0o77]),
                         rng.choice([0, 1, 2000])]),
            (1, lambda: ["mknod", self.new(), *rng.choice(kinds)]),
            (1, lambda: ["symlink", self.new(), rng.choice(targets)]),
            (3, lambda: ["link", self.file(), self.new()]),
            (4, lambda: ["unlink", self.file()]),
            (3, lambda: ["rmdir", rng.choice(self.dirs) or "."]),
            (5, lambda: ["rename", self.any(), self.new(), rng.choice([0, 0, 0, 1])]),
            (2, lambda: ["rename", self.any(), self.any(), rng.choice([0, 1, 2, 2])]),
            (5, lambda: ["read", self.file()]),
            (1, lambda: ["read_mapped", self.file()]),
            (2, lambda: ["list", rng.choice(self.dirs) or "."]),
            (4, lambda: ["stat", self.any()]),
            (4, lambda: ["access", self.any(), rng.choice([1, 2, 4, 6])]),
            (1, lambda: ["get_xattr", self.any(), rng.choice([*XATTRS, CAPABILITY, ACCESS])]),
            (6, lambda: ["write", self.file(), number(6000), rng.choice([0, 1, 50, 5000]),
                         rng.choice(flags)]),
            (3, lambda: ["truncate", self.file(), rng.choice(SIZES)]),
            (4, lambda: ["write_mapped", self.file(), number(9000), number(3)]),
            (1, lambda: ["allocate", self.file(), number(6000), 1 + number(6000),
                         rng.choice([0, 1, 3, 0x11])]),
            # overlayfs leaves the access time of such a source alone; no other file system does.
            (self.most >> 11, lambda: ["copy_range", self.file(), self.file()]),
            (6, lambda: ["chmod", self.any(), self.mode()]),
            (5, lambda: ["chown", self.any(), *self.owner()]),
            (5, lambda: ["utimes", self.any(), rng.choice([-100, 0, 100, 10 ** 6])]),
            (1, lambda: ["utimes_now", self.any()]),
            (3, lambda: ["set_xattr", self.any(), rng.choice(XATTRS), rng.choice(["v", "w" * 99]),
                         rng.choice([0, 0, 1, 2])]),
            (1, lambda: ["remove_xattr", self.any(), rng.choice([*XATTRS, CAPABILITY])]),
            (5, lambda: ["set_acl", self.any(), ACCESS, self.bits()]),
            (3, lambda: ["set_acl", rng.choice(self.dirs) or ".", DEFAULT, self.bits()]),
            (2, lambda: ["remove_xattr", self.any(), rng.choice([ACCESS, ACCESS, DEFAULT])]),
            (3, lambda: ["set_capability", self.file()]),
            (4, lambda: ["hold", number(3), self.file(), rng.choice([os.O_RDWR, os.O_RDWR,
                         os.O_RDWR | os.O_TRUNC, os.O_RDWR | os.O_APPEND])]),
            (10, lambda: ["held", number(3), *rng.choice([
                ["write", number(6000), 50], ["read"], ["map", number(9000), number(3)],
                ["truncate", rng.choice(SIZES)], ["chmod", self.mode()],
                ["chown", *self.owner()], ["stat"], ["set_acl", self.bits()],
                ["close"]])]),
        ]
        name, *arguments = rng.choices([m for _, m in makes], [w for w, _ in makes])[0]()
        return [name, self.who(), *arguments]
