"""Edits a union's directories while nothing is mounted: uppers are edited, copied and synced,
lowers changed and made again, everything moved to another file system.

Invariant: an edit is made to both uppers or to neither, and only where overlayfs defines the
result: no edit moves a metacopy or a redirect, and no content below a metacopy changes.
"""
import os
import random
import shutil
import stat
import subprocess

from beside_ops import ACCESS, CAPABILITY, DEFAULT, NAMES, RAW, acl, listing

MARKS = ("trusted.overlay.", "user.overlay.", "user.containers.")
HARMLESS = ("strata.origin", "origin", "impure", "opaque", "uuid", "nlink")


def make_lower(root, seed, mode):
    """A lower, the same for the same seed; every directory has a default ACL."""
    rng = random.Random(seed)
    dirs = [""]
    os.setxattr(root, DEFAULT, acl(0o77777))
    for depth in range(2):
        for where in list(dirs):
            for name in NAMES[3:]:
                if rng.random() < 0.6 and not os.path.lexists(root + "/" + where + "/" + name):
                    path = (where + "/" + name).lstrip("/")
                    os.mkdir(root + "/" + path)
                    dirs.append(path)
    for where in dirs:
        for name in NAMES[:3]:
            path = root + "/" + where + "/" + name
            kind = rng.random()
            if kind < 0.5:
                with open(path, "wb") as file:
                    file.write(rng.randbytes(rng.choice([0, 3, 100, 5000, 9000])))
            elif kind < 0.6:
                os.symlink(rng.choice(["g", "../h", "d"]), path)
            elif kind < 0.65:
                os.mknod(path, stat.S_IFIFO | 0o644)
            elif kind < 0.7 and mode["kind"] == "indexed" and where:
                linked = [n for n, is_dir, _ in listing(root) if not is_dir]
                if linked:
                    os.link(root + "/" + rng.choice(linked), path, follow_symlinks=False)
    for path, is_dir, _ in [("", True, 0), *listing(root)]:
        decorate(root + "/" + path, is_dir, rng, 0o1777 if mode["atimes"] else 0o7777)


def decorate(path, is_dir, rng, most):
    """Owners, bits, attributes and old times."""
    os.chown(path, rng.choice([0, 0, 1000, 1001]), rng.choice([0, 1000, 2000]),
             follow_symlinks=False)
    if not os.path.islink(path):
        modes = [0o755, 0o777, 0o3777, 0o775] if is_dir else [0o644, 0o600, 0o666, 0o4755, 0o2775,
                                                              0o6666]
        os.chmod(path, rng.choice(modes) & most)
        if rng.random() < 0.4:
            os.setxattr(path, ACCESS, acl(rng.getrandbits(19) | 0o444))
        if is_dir and rng.random() < 0.7:
            os.setxattr(path, DEFAULT, acl(rng.getrandbits(19) | 0o444))
        if os.path.isfile(path) or is_dir:
            os.setxattr(path, "user.one", b"lower")
        if os.path.isfile(path) and rng.random() < 0.3:
            os.setxattr(path, CAPABILITY, RAW)
    old(path, rng.randrange(1000))


def old(path, seconds):
    """A lower's node shows its modification time as its access time; this makes them equal."""
    when = 10 ** 18 + seconds * 10 ** 9 + 5
    os.utime(path, ns=(when, when), follow_symlinks=False)


def cover(root, below, seed):
    """Makes the uppermost of two lowers hide some names of the other."""
    rng = random.Random(seed)
    opaque = set()
    for path, is_dir, _ in listing(below):
        at = root + "/" + path
        parent = os.path.dirname(at)
        if not os.path.isdir(parent) or os.path.islink(parent) or parent in opaque:
            continue
        if not os.path.lexists(at) and rng.random() < 0.15:
            os.mknod(at, stat.S_IFCHR, 0)
        elif is_dir and os.path.isdir(at) and not os.path.islink(at) and rng.random() < 0.2:
            os.setxattr(at, "trusted.overlay.opaque", b"y")
            opaque.add(at)


def marks(path):
    """The marks of the node, except for its origin."""
    names = os.listxattr(path, follow_symlinks=False)
    names = [name[len(mark):] for name in names for mark in MARKS if name.startswith(mark)]
    return [name for name in names if name not in HARMLESS]


def plain(root, path):
    """Whether neither the node nor any node below it has a mark other than an origin."""
    at = root + "/" + path
    if not os.path.lexists(at) or os.path.islink(os.path.dirname(at)):
        return False
    inside = []
    if os.path.isdir(at) and not os.path.islink(at):
        inside = [at + "/" + name for name, _, _ in listing(at)]
    return not any(marks(node) for node in [at, *inside])


def is_whiteout(path):
    found = os.lstat(path)
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def copied(source, target, how):
    """Copies a directory with all that is in it; the tool decides which attributes it keeps."""
    if how == "tar":
        os.mkdir(target)
        keep = "--xattrs --xattrs-include=* --acls --format=posix".split()
        pack = subprocess.Popen(["tar", "-C", source, *keep, "--numeric-owner", "-c", "."],
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        subprocess.run(["tar", "-C", target, *keep, "--numeric-owner", "-xp"], stdin=pack.stdout,
                       check=True)
        pack.stdout.close()
        if pack.wait() > 1:
            raise OSError("tar has failed")
        one_time(target)
        return
    # With -A rsync 3.5 removes the owning group from an ACL, if no attribute was set after it.
    tools = {"cp": ["cp", "-aT"], "rsync": ["rsync", "-aHX"], "unlinked": ["rsync", "-aX"]}
    if not shutil.which(tools[how][0]):
        how = "cp"
    slash = "" if how == "cp" else "/"
    subprocess.run([*tools[how], source + slash, target], check=True)
    if how != "cp":
        one_time(target)


def one_time(root):
    """Nodes that were copied up for a failed operation have another access time than below."""
    for path, is_dir, _ in listing(root):
        if not is_dir:
            mtime = os.lstat(root + "/" + path).st_mtime_ns
            os.utime(root + "/" + path, ns=(mtime, mtime), follow_symlinks=False)


class Apart:
    """Edits of a pair of unmounted unions; each says whether it was done."""

    def __init__(self, pair):
        self.pair = pair

    def run(self, edit):
        name, *arguments = edit
        return getattr(self, "do_" + name)(*arguments)

    def uppers(self):
        return [self.pair.base + "/%s/upper" % side for side in self.pair.sides]

    def both(self, path, test):
        return all(test(upper, path) for upper in self.uppers())

    def editable(self, path):
        """Both have the node itself, of one type."""
        if not self.both(path, plain) or self.pair.mode["kind"] in ("apart", "indexed"):
            return False
        kinds = {os.lstat(u + "/" + path).st_mode for u in self.uppers()}
        # What an operation that failed has brought up in one of them alone would go along.
        dirs = [u + "/" + path for u in self.uppers() if os.path.isdir(u + "/" + path)]
        inside = {tuple(name for name, _, _ in listing(where)) for where in dirs}
        return len(kinds) == 1 and len(inside) < 2 and not self.both(path, lambda u, p: is_whiteout(u + "/" + p))

    def free(self, path):
        """Both have no node there, or a whiteout, in a directory."""
        for upper in self.uppers():
            at, parent = upper + "/" + path, os.path.dirname(upper + "/" + path)
            if not os.path.isdir(parent) or os.path.realpath(parent) != parent:
                return False
            if os.path.lexists(at) and not is_whiteout(at):
                return False
        return self.pair.mode["kind"] not in ("apart", "indexed")

    def clear(self, path):
        for upper in self.uppers():
            if os.path.lexists(upper + "/" + path):
                os.unlink(upper + "/" + path)

    def nothing_moved(self):
        """No upper has a node whose lower is elsewhere: a lower node that shows again there would
        be a second one with that origin. overlayfs then says ESTALE, or shows the other's owner."""
        for upper in self.uppers():
            for path, _, _ in listing(upper):
                if {"metacopy", "redirect"} & set(marks(upper + "/" + path)):
                    return False
        return True

    def may_become(self, path, new):
        inside = (new + "/").startswith(path + "/")
        return self.editable(path) and self.free(new) and not inside and self.nothing_moved()

    # Uppers.
    def do_copy(self, path, new):
        if not self.may_become(path, new):
            return False
        self.clear(new)
        for upper in self.uppers():
            source = upper + "/" + path
            inside = listing(source) if os.path.isdir(source) else []
            nodes = [source, *(source + "/" + name for name, _, _ in inside)]
            times = [os.lstat(node) for node in nodes]
            subprocess.run(["cp", "-aT", source, upper + "/" + new], check=True)
            # What cp reads, and whether that changes a time, depends on the holes of a file.
            for node, found in zip(nodes, times):
                os.utime(node, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)
        return True

    def do_shift(self, path, new):
        if not self.may_become(path, new):
            return False
        self.clear(new)
        for upper in self.uppers():
            os.rename(upper + "/" + path, upper + "/" + new)
        return True

    def do_remove(self, path):
        if not self.both(path, plain) or self.pair.mode["kind"] in ("apart", "indexed"):
            return False
        if not self.nothing_moved():
            return False
        for upper in self.uppers():
            at = upper + "/" + path
            if os.path.isdir(at) and not os.path.islink(at):
                shutil.rmtree(at)
            else:
                os.unlink(at)
        return True

    def do_make(self, path, kind):
        if not self.free(path) or not self.nothing_moved():
            return False
        self.clear(path)
        for upper in self.uppers():
            at = upper + "/" + path
            if kind == "dir":
                os.mkdir(at)
            elif kind == "link":
                os.symlink("f", at)
            else:
                with open(at, "w") as file:
                    file.write("by hand")
        return True

    def do_edit(self, path, what, number):
        if not self.editable(path):
            return False
        for upper in self.uppers():
            at = upper + "/" + path
            if os.path.islink(at):
                return False
            if what == "append" and os.path.isfile(at):
                with open(at, "ab") as file:
                    file.write(b"by hand")
            elif what == "chmod":
                os.chmod(at, number & (0o1777 if self.pair.mode["atimes"] else 0o7777))
            elif what == "acl":
                os.setxattr(at, ACCESS, acl(number))
            elif what == "times":
                old(at, number % 1000)
        return True

    def tool(self, how):
        """Two metacopies that are no longer links are one file for overlayfs, and then ESTALE; tar
        keeps links of files alone. rsync leaves ACLs out, also those kept as other attributes."""
        if self.pair.mode["kind"] == "apart" and how in ("rsync", "unlinked"):
            how = "cp"
        linked = any(os.lstat(upper + "/" + path).st_nlink > 1 for upper in self.uppers()
                     for path, is_dir, _ in listing(upper) if not is_dir)
        return {"unlinked": "rsync", "tar": "cp"}.get(how, how) if linked else how

    def do_sync(self, how):
        """Copies each upper to other inodes in the same place; removes the old ones."""
        if self.pair.mode["kind"] == "indexed":
            return False
        how = self.tool(how)
        for upper in self.uppers():
            copied(upper, upper + ".new", how)
            shutil.rmtree(upper)
            os.rename(upper + ".new", upper)
        return True

    # Lowers.
    def lower_may_change(self):
        """No upper has a metacopy, for its content would change with its lower's."""
        if self.pair.mode["kind"] == "indexed":
            return False
        for upper in self.uppers():
            for path, is_dir, _ in listing(upper):
                if not is_dir and "metacopy" in marks(upper + "/" + path):
                    return False
        return True

    def do_lower(self, what, path, new):
        at, to = self.pair.base + "/lower/" + path, self.pair.base + "/lower/" + new
        parent = os.path.dirname(to)
        if not self.lower_may_change() or os.path.realpath(parent) != parent:
            return False
        there, is_dir = os.path.lexists(at), os.path.isdir(at) and not os.path.islink(at)
        # overlayfs finds a directory that moves below one of an upper at two places, or at none.
        moves = what in ("rename", "swap") and (is_dir or os.path.isdir(to))
        uppers = self.uppers()
        if moves and any(os.path.lexists(u + "/" + name) for u in uppers for name in (path, new)):
            return False
        dirs = [where for where in {os.path.dirname(at), parent} if os.path.isdir(where)]
        times = [(where, os.stat(where).st_mtime_ns) for where in dirs]
        done = self.change_lower(what, (at, there, is_dir), to)
        # An operation that failed may have copied a directory up before, with its times.
        for where, mtime in times:
            if os.path.isdir(where):
                os.utime(where, ns=(mtime, mtime))
        return done

    def change_lower(self, what, found, to):
        (at, there, is_dir), parent = found, os.path.dirname(to)
        if what in ("write", "renew") and there and os.path.isfile(at) and not os.path.islink(at):
            if what == "renew":
                os.unlink(at)
            with open(at, "ab") as file:
                file.write(what.encode() * 9)
            os.utime(at)
        elif what == "remove" and there:
            shutil.rmtree(at) if is_dir else os.unlink(at)
        elif what == "make" and os.path.isdir(parent) and not os.path.lexists(to):
            with open(to, "w") as file:
                file.write("new in the lower")
            os.utime(to)
        elif what == "mkdir" and os.path.isdir(parent) and not os.path.lexists(to):
            os.mkdir(to)
        elif what == "rename" and there and not os.path.lexists(to) and os.path.isdir(parent):
            if (to + "/").startswith(at + "/"):
                return False
            os.rename(at, to)
        elif what == "swap" and there and os.path.lexists(to) and at != to:
            if (to + "/").startswith(at + "/") or (at + "/").startswith(to + "/"):
                return False
            os.rename(at, at + ".swap")
            os.rename(to, at)
            os.rename(at + ".swap", to)
        else:
            return False
        return True

    def do_lower_copied(self):
        """Replaces the lower by an equal one with other inodes."""
        if self.pair.mode["kind"] == "indexed":
            return False
        lower = self.pair.base + "/lower"
        copied(lower, lower + ".new", "cp")
        shutil.rmtree(lower)
        os.rename(lower + ".new", lower)
        return True

    def do_move(self, how):
        """Moves everything to another file system: the lower by cp, the uppers by a tool."""
        if self.pair.mode["kind"] == "indexed":
            return False
        how = self.tool(how)
        source = self.pair.base
        target = self.pair.elsewhere()
        for name in sorted(os.listdir(source)):
            if name.startswith("lower"):
                copied(source + "/" + name, target + "/" + name, "cp")
        for side in self.pair.sides:
            os.mkdir(target + "/" + side)
            copied("%s/%s/upper" % (source, side), "%s/%s/upper" % (target, side), how)
            # The files of the last mount still change for a moment after the umount.
            os.mkdir("%s/%s/work" % (target, side))
            os.setxattr("%s/%s/work" % (target, side), DEFAULT, acl(0o77777))
        shutil.rmtree(source)
        self.pair.base = target
        return True


def draw(rng, maker):
    """One edit, or a few of one kind."""
    tool = rng.choice(["cp", "rsync", "unlinked", "tar"])
    what = rng.choice(["write", "renew", "renew", "remove", "make", "mkdir", "rename", "swap"])
    edit = rng.choice(["append", "chmod", "acl", "times"])

    def any():
        path = maker.any()
        return maker.new() if path == "." else path

    choices = [
        (4, lambda: ["copy", any(), maker.new()]),
        (3, lambda: ["shift", any(), maker.new()]),
        (2, lambda: ["remove", any()]),
        (2, lambda: ["make", maker.new(), rng.choice(["file", "dir", "link"])]),
        (3, lambda: ["edit", any(), edit, rng.getrandbits(19) | 0o444]),
        (2, lambda: ["sync", tool]),
        (6, lambda: ["lower", what, any(), maker.new() if what in ("make", "mkdir", "rename")
                     else any()]),
        (1, lambda: ["lower_copied"]),
        (2, lambda: ["move", tool]),
    ]
    return rng.choices([c for _, c in choices], [w for w, _ in choices])[0]()
