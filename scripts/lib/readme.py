"""Types what the README shows, in its order, and compares what is said.

usage: readme.py STRATA

The model: a newcomer in a clone of the repository, with an empty home directory: one shell, an
ordinary user's (nobody's, if root asks), gets every command of the console blocks that has a `$`
before it. What differs from machine to machine is masked: ages, sizes, process ids, ids of what is
made anew, the home directory. Left out are blocks of root's, what builds, what wants a registry
(scripts/tour has one), and figures of images that are not in the repository.

The exit status is 0 only if all was said as the README has it.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
LEFT_OUT = re.compile(r"cargo |PATH=|sudo |skopeo |.*localhost:5000|.*'\*/team/\*'|"
                      r".*reuse --chunks")
AGE = (r"(Less than a second|About an? (minute|hour)|"
       r"\d+ (second|minute|hour|day|week|month|year)s?)( ago)?")
MASKS = [
    (AGE, "AGE"),
    (r"\b(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +\d+ +[\d:]+", "DATE"),
    (r"\b[0-9.]+(B|kB|MB)(?=\s|$|,|\))", "SIZE"),
    (r"owner of \d+ entries", "owner of N entries"),
    (r"\b\d+ +AGE +alive", "PID AGE alive"),
    (r"\s+", " "),
]


def masked(line, home, made):
    """A line without what differs from machine to machine."""
    for name, value in made.items():
        line = line.replace(value, name)
    line = line.replace(home, "/home/user")
    for pattern, word in MASKS:
        line = re.sub(pattern, word, line)
    return line.strip()


def commands(text):
    """Each command of the console blocks, with the lines that it is said to print."""
    for block in re.findall(r"```console\n(.*?)```", text, re.S):
        found = []
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif found and found[-1][0].endswith("\\"):
                found[-1] = (found[-1][0] + "\n" + line, found[-1][1])
            elif found:
                found[-1][1].append(line)
        yield from found


def new_ids(lines, made, who):
    """Ids of what a command has just made: they hold the time."""
    for line in lines:
        for digest in re.findall(r"sha256:([0-9a-f]{64})", line):
            made.setdefault("<%s>" % who, digest)
            made.setdefault("<short %s>" % who, digest[:12])


class Shell:
    """One shell, as an ordinary user."""

    def __init__(self, home):
        environment = {"HOME": home, "LC_ALL": "C.UTF-8", "TERM": "dumb", "USER": "user",
                       "PATH": home + "/bin:/usr/local/bin:/usr/bin:/bin"}
        command = ["bash", "--noprofile", "--norc"]
        if os.geteuid() == 0:
            command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] + command
        self.shell = subprocess.Popen(command, cwd=home, env=environment, text=True,
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT)

    def type(self, command):
        """What a command prints."""
        self.shell.stdin.write(command + "\necho; echo end-of-it\n")
        self.shell.stdin.flush()
        said = []
        for line in self.shell.stdout:
            if line == "end-of-it\n":
                break
            said.append(line.rstrip("\n"))
        while said and not said[-1]:
            said.pop()
        return said

    def end(self):
        """Ends what is still mounted, and the shell."""
        self.type("for at in look work; do ! mountpoint -q $at || strata umount -l $at; done")
        self.shell.stdin.close()
        self.shell.wait()


def main(strata):
    with open(os.path.join(TOP, "README.md"), encoding="utf-8") as text:
        shown = list(commands(text.read()))
    os.umask(0o022)
    home = tempfile.mkdtemp(prefix="strata-readme.", dir=os.environ.get("TMPDIR", "/var/tmp"))
    os.makedirs(os.path.join(home, "tests"))
    shutil.copytree(os.path.join(TOP, "tests/fixtures"), os.path.join(home, "tests/fixtures"))
    # Where the program lies, another user may have no way to.
    os.makedirs(os.path.join(home, "bin"))
    shutil.copy(strata, os.path.join(home, "bin", "strata"))
    os.chmod(home, 0o755)
    if os.geteuid() == 0:
        os.chown(home, 65534, 65534)
    shell, typed, wrong = Shell(home), 0, 0
    said_ids, read_ids = {}, {}
    try:
        for command, expected in shown:
            if LEFT_OUT.match(command):
                continue
            said, typed = shell.type(command), typed + 1
            if command.startswith("strata commit"):
                new_ids(said, said_ids, "image")
                new_ids(expected, read_ids, "image")
            for lines, ids in ((said, said_ids), (expected, read_ids)):
                # The second id that goes with a removed image of the tour is its new layer's.
                if command.startswith("strata layers") and len(lines) > 5:
                    ids.setdefault("<short layer>", lines[-1].split()[1])
            while expected and not expected[-1]:
                expected.pop()
            is_ = [masked(line, home, said_ids) for line in said]
            should = [masked(line, home, read_ids) for line in expected]
            is_, should = ([re.sub("<short layer>[0-9a-f]{52}", "<layer>", line) for line in lines]
                           for lines in (is_, should))
            if command.startswith("strata load"):
                is_, should = sorted(is_), sorted(should)
            if is_ != should:
                wrong += 1
                print("WRONG: $ %s" % command)
                for line in is_:
                    print("   %s %s" % (" " if line in should else "+", line))
                for line in should:
                    if line not in is_:
                        print("   - %s" % line)
    finally:
        shell.end()
        shutil.rmtree(home)
    print("README: %d commands, %s" % (typed, "%d WRONG" % wrong if wrong else "as it says"))
    sys.exit(wrong != 0 or typed < 40)


if __name__ == "__main__":
    main(*sys.argv[1:])
