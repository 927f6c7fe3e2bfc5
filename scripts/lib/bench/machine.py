"""What the figures were measured on: the machine, and the versions of all programs involved."""
import os
import platform
import re
import shutil
import subprocess


def first_line(*command):
    """The first line that a command prints, or None if it does not exist."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].strip() if lines else "no version"


def cpu():
    """The processor's name."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def facts(bench):
    """The parts of a document that no row carries."""
    def fuse_overlayfs(binary):
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)
        found = re.search(r"fuse-overlayfs:? (version )?([\d.]+\S*)", said.stdout + said.stderr)
        return found.group(2) if found else None
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = round(int(file.readline().split()[1]) / (1 << 20))
    where = first_line("findmnt", "-n", "-o", "FSTYPE", "-T", bench.directory)
    versions = {
        "strata": first_line(bench.strata, "--version"),
        "commit": first_line("git", "-C", bench.root, "describe", "--always", "--dirty"),
        "kernel overlayfs": platform.release(),
        "fuse-overlayfs 1": fuse_overlayfs("fuse-overlayfs"),
        "fuse-overlayfs 2": fuse_overlayfs(bench.fuse_overlayfs_2),
        "tar": first_line("tar", "--version"),
        "podman": first_line("podman", "--version"),
        "skopeo": first_line("skopeo", "--version"),
        "umoci": first_line("umoci", "--version"),
        "containerd": first_line("containerd", "--version"),
        # The program does not print its version.
        "squashfuse": first_line("dpkg-query", "-W", "-f", "${Version}", "squashfuse"),
        "erofsfuse": first_line("erofsfuse", "--help"),
        "fio": first_line("fio", "--version"),
        "sqlite3": first_line("sqlite3", "--version"),
        "git": first_line("git", "--version"),
    }
    return {
        "machine": {"cpu": cpu(), "cores": os.cpu_count(), "memory_gib": memory,
                    "kernel": platform.release(), "file_system": where,
                    "system": os_name()},
        "versions": {name: version for name, version in versions.items() if version},
        "quick": bench.quick,
    }


def os_name():
    """The distribution."""
    return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
