"""A file system whose power fails: ext4, XFS or btrfs in a file, shut down without its last writes.

The model: a `CutDisk` has a file `disk.img` and a directory `disk`, on which the file system in it is
mounted. ext4 and XFS are shut down by EXT4_IOC_SHUTDOWN, which XFS knows by the same number: with
`NO_LOG_FLUSH` everything is lost that was not synced; with `LOG_FLUSH` the journal is written first, so
that names may be there whose bytes are not. btrfs cannot be shut down; its disk is a file of an ext4,
`host.img` on `host`, and that is shut down: any part that was not flushed may be lost.
"""
import fcntl
import os
import shutil
import subprocess
import sys
import time

EXT4, XFS, BTRFS = ["mkfs.ext4", "-F"], ["mkfs.xfs", "-f"], ["mkfs.btrfs", "-f", "-K"]
NAMES = {"ext4": EXT4, "xfs": XFS, "btrfs": BTRFS}
SHUTDOWN, LOG_FLUSH, NO_LOG_FLUSH = 0x8004587D, 1, 2


def run(*argv, **options):
    subprocess.run(argv, check=True, **options)


def new_file(path, size):
    """An empty file of that many bytes, all of them holes."""
    with open(path, "wb") as image:
        image.truncate(size)


def makers():
    """The commands that make the file systems which this machine has, by their names."""
    with open("/proc/filesystems", encoding="ascii") as file:
        known = file.read().split()
    return {name: maker for name, maker in NAMES.items()
            if name == "ext4" or name in known and shutil.which(maker[0])}


class CutDisk:
    """One such disk, in the directory `work`."""

    def __init__(self, work, maker, size):
        self.work, self.maker, self.size = work, maker, size
        for name in ("disk", "host"):
            os.makedirs(self.at(name), exist_ok=True)

    def at(self, name):
        return os.path.join(self.work, name)

    @property
    def image(self):
        return self.at("host/disk.img" if self.maker == BTRFS else "disk.img")

    def make(self):
        """Makes the file system, and mounts it."""
        if self.maker == BTRFS:
            self._new_host()
        else:
            new_file(self.image, self.size)
        run(*self.maker, "-q", self.image, stdout=subprocess.DEVNULL)
        self.attach()

    def copy_to(self, path):
        """Keeps what is on the disk, which is not mounted, in a file."""
        run("cp", "--sparse=always", self.image, path)

    def copy_from(self, path):
        """Puts what was kept back on the disk, which is not mounted, and mounts it."""
        if self.maker == BTRFS:
            if not os.path.ismount(self.at("host")):
                self._new_host()
            # In the same blocks of the ext4.
            run("dd", "if=" + path, "of=" + self.image, "bs=1M", "conv=notrunc,fsync", "status=none")
        else:
            run("cp", "--sparse=always", path, self.image)
        self.attach()

    def attach(self):
        # To discard would make holes in the file.
        discard = ",nodiscard" if self.maker == BTRFS else ""
        run("mount", "-o", "loop" + discard, self.image, self.at("disk"))

    def shut_down(self, how=NO_LOG_FLUSH):
        """The power fails. Whatever is mounted above is unmounted before `detach`."""
        where = self.at("host" if self.maker == BTRFS else "disk")
        directory = os.open(where, os.O_RDONLY)
        fcntl.ioctl(directory, SHUTDOWN, how.to_bytes(4, sys.byteorder))
        os.close(directory)

    def detach(self, everything=True):
        """Unmounts the disk and, with `everything`, its host. The kernel uses the disk a moment longer
        than a process that was killed, and its loop device uses the host."""
        self._umount("disk")
        if everything and os.path.ismount(self.at("host")):
            self._umount("host")

    def boot(self):
        """Mounts the disk again after `shut_down`, as the next start of the machine would."""
        self.detach()
        if self.maker == BTRFS:
            run("mount", "-o", "loop", self.at("host.img"), self.at("host"))
        self.attach()

    def _umount(self, what):
        for _ in range(100):
            if subprocess.run(["umount", self.at(what)], stderr=subprocess.DEVNULL,
                              check=False).returncode == 0:
                return
            time.sleep(0.05)
        raise OSError("%s stays busy" % self.at(what))

    def _new_host(self):
        new_file(self.at("host.img"), 2 * self.size)
        run(*EXT4, "-q", self.at("host.img"))
        run("mount", "-o", "loop", self.at("host.img"), self.at("host"))
        # All of it is written once, so that later writes change only bytes in the ext4.
        with open(self.image, "wb") as image:
            for _ in range(self.size >> 20):
                image.write(bytes(1 << 20))
            os.fsync(image.fileno())
