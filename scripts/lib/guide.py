"""Types the commands of README.md and the pages of docs/guide, and compares their output.

usage: guide.py [--update] BIN [PAGE]...

BIN is a directory with strata and strata-overlay; PAGEs are files (default: README.md and all of
docs/guide). --update writes the output into the pages where it differs.

The model: each page is for a newcomer in a clone of the repository with an empty home directory,
and stands alone. Every command of its console blocks is typed, in order: after `$ ` into a shell of
an ordinary user (nobody, if root runs this), after `# ` into a shell of root, which has a mount
namespace, /usr/local/bin and /etc/containers of its own. A line that ends with a backslash is
continued. A block of a language and the name of a file (toml /etc/...) is written into that file.
`localhost:5000` is a registry that starts empty with the page. Text that differs from machine to
machine is masked: ages, process ids, the home directory, and sizes on this machine's disk. After
a commit or an import, ids that no earlier command showed may differ too, but each must stay the
same on the page.

It skips only the commands that build (`cargo`, and PATH= after it), and the page on podman if
podman runs no container with its own storage either. The exit status is 0 only if every output is
that of the page, every relative link has its target and the README is short; 77 if
nothing was wrong and a page could not be run.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

TOP = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
README_LINES = 160
BUILDS = re.compile(r"cargo |PATH=")
MAKES = re.compile(r".*\b(commit|import)\b")
# Commands that print sizes on this machine's disk.
SIZES_DIFFER = re.compile(r".*strata (.*df|uppers|rmi --dry-run|report|export|ps|reuse --chunks)\b")
AGE = (r"(Less than a second|About an? (minute|hour)|"
       r"\d+ (second|minute|hour|day|week|month|year)s?)( ago)?")
MASKS = [
    (AGE, "AGE"),
    (r"\b(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +\d+ +[\d:]+", "DATE"),
    (r"owner of \d+ entries", "owner of N entries"),
    (r"\b\d+ +AGE +alive", "PID AGE alive"),
    # Any name of a content.
    (r"/\S+ and (\d+) more\b", r"PATH and \1 more"),
    (r"\s+", " "),
]
SIZE = re.compile(r"\b[0-9.]+(B|kB|MB)(?=\s|$|,|\))")
ID = re.compile(r"\b[0-9a-f]{12}(?:[0-9a-f]{52})?\b")


class Command:
    """A command of a page: which user types it, the command, and the output that the page has."""

    def __init__(self, root, text, at):
        self.root, self.text, self.at, self.expected = root, text, at, []


class File:
    """A file of a page, which root writes."""

    def __init__(self, path):
        self.path, self.lines = path, []


def steps(lines):
    """The steps of a page, in order. Lines count from 0."""
    found, block = [], None
    for at, line in enumerate(lines):
        if block is None:
            words = re.match(r"```(\w+) ?(\S*)$", line)
            if words:
                block = "console" if words[1] == "console" else "file" if words[2] else "other"
                if block == "file":
                    found.append(File(words[2]))
        elif line == "```":
            block = None
        elif block == "file":
            found[-1].lines.append(line)
        elif block == "console":
            last = found[-1] if found and isinstance(found[-1], Command) else None
            if last and last.text.endswith("\\") and not last.expected:
                last.text += "\n" + line
                last.at = at
            elif line[:2] in ("$ ", "# "):
                found.append(Command(line[0] == "#", line[2:], at))
            elif last:
                last.expected.append(line)
            else:
                sys.exit("guide: output before any command: " + line)
    return found


def masked(line, sizes):
    """A line without what differs from machine to machine."""
    for pattern, word in MASKS:
        line = re.sub(pattern, word, line)
    return (SIZE.sub("SIZE", line) if sizes else line).strip()


class Ids:
    """Ids that this page has made: the real id for the page's."""

    def __init__(self):
        self.known, self.made, self.began = set(), {}, False

    def meet(self, said, expected):
        """Pairs the ids of two lines; gives the printed line, with the page's ids."""
        is_, should = ID.findall(said), ID.findall(expected)
        if not self.began:
            self.known.update(id[:12] for id in should)
        elif len(is_) == len(should):
            for new, old in zip(is_, should):
                before = self.made.get(new[:12], "")
                if old.startswith(before) and not {old[:12], new[:12]} & self.known:
                    self.made[new[:12]] = max(before, old)
        return self.translate(said)

    def translate(self, line):
        """A printed line, with the page's ids."""
        def page(match):
            old = self.made.get(match[0][:12])
            return old[:len(match[0])] if old and len(old) >= len(match[0]) else match[0]
        return ID.sub(page, line)


class Shell:
    """One shell, an ordinary user's or root's."""

    def __init__(self, home, root):
        environment = {
            "HOME": home, "LC_ALL": "C.UTF-8", "TERM": "dumb", "TZ": "UTC",
            "USER": "root" if root else "user",
            "PATH": home + "/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "CONTAINERS_REGISTRIES_CONF": home + "/none.conf",
        }
        command = ["bash", "--noprofile", "--norc"]
        if root:
            environment["CONTAINERS_CONF"] = home + "/containers.conf"
            environment["XDG_RUNTIME_DIR"] = home + "/run"
            command = ["unshare", "--mount", "--propagation", "private"] + command
            if os.geteuid() != 0:
                pairs = ["%s=%s" % pair for pair in environment.items()]
                command = ["sudo", "env"] + pairs + command
        elif os.geteuid() == 0:
            command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                       "--inh-caps=-all"] + command
        self.shell = subprocess.Popen(command, cwd=home, env=environment, text=True,
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT)

    def type(self, command):
        """What a command prints."""
        # A command that reads gets no input, else it would read the commands after it.
        self.shell.stdin.write("{ %s\n} < /dev/null\necho; echo end-of-it\n" % (command or ":"))
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
        """Unmounts all mounts, and ends the shell."""
        self.type("while read -r _ _ _ _ at _; do case $at in $HOME/*) umount -l $at ||"
                  " fusermount3 -u -z $at;; esac; done < <(tac /proc/self/mountinfo)")
        self.shell.stdin.close()
        self.shell.wait()


# Root's shell has of its own: the directories that examples install into, and podman without
# systemd, without a network and with limits that work on any machine.
ROOTS_OWN = r"""
{ mount -t tmpfs none /usr/local/bin && mkdir -p etc store run /var/lib/containers &&
  cp -r /etc/containers/. etc/; mount --bind etc /etc/containers; rm -f etc/storage.conf
  mount --bind store /var/lib/containers; mkdir -p run/containers /run/containers
  mount --bind run/containers /run/containers
  export BUILDAH_RUNTIME=runc BUILDAH_ISOLATION=chroot
  cat > containers.conf << END
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
END
} > /dev/null 2>&1
"""


# Whether podman runs containers here, without strata-overlay.
PROBE = r"""podman --root probe --runroot run/probe --storage-driver vfs --storage-opt '' run --rm \
  oci-archive:tests/fixtures/busybox-gzip.oci.tar true > /dev/null 2>&1 &&
  command -v buildah > /dev/null && echo works"""


class Registry:
    """A docker-registry of a page, empty, on a free port of this machine."""

    def __init__(self, home):
        config, log = os.path.join(home, "registry.yml"), os.path.join(home, "registry.log")
        with open(config, "w", encoding="utf-8") as out:
            out.write('version: 0.1\nlog: {level: info}\nstorage: {filesystem: {rootdirectory: '
                      '%s/registry}}\nhttp: {addr: "127.0.0.1:0"}\n' % home)
        with open(log, "w", encoding="utf-8") as out:
            self.process = subprocess.Popen(["docker-registry", "serve", config], stdout=out,
                                            stderr=subprocess.STDOUT)
        self.port = None
        while not self.port and self.process.poll() is None:
            with open(log, encoding="utf-8") as text:
                self.port = re.search(r"listening on 127\.0\.0\.1:(\d+)", text.read())
        if not self.port:
            sys.exit("guide: docker-registry does not start: " + open(log).read())
        self.port = "localhost:" + self.port[1]

    def end(self):
        """Ends it."""
        self.process.kill()
        self.process.wait()


class Page:
    """One page, and the results of its commands."""

    def __init__(self, path):
        self.path, self.name = path, os.path.relpath(path, TOP)
        with open(path, encoding="utf-8") as text:
            self.lines = text.read().split("\n")
        self.steps = steps(self.lines)
        self.typed, self.wrong, self.changes, self.not_run = 0, 0, [], False

    def run(self, base):
        """Types all commands."""
        home = tempfile.mkdtemp(dir=base)
        os.symlink(os.path.join(base, "tests"), os.path.join(home, "tests"))
        for directory in ("bin", "target/release"):
            os.makedirs(os.path.join(home, directory))
            for program in "strata", "strata-overlay":
                os.link(os.path.join(base, "bin", program), os.path.join(home, directory, program))
        open(os.path.join(home, "none.conf"), "w").close()
        registry = Registry(home) if "localhost:5000" in "\n".join(self.lines) else None
        os.chmod(home, 0o755)
        if os.geteuid() == 0:
            os.chown(home, 65534, 65534)
        shells, ids = {}, Ids()
        try:
            if any(isinstance(step, Command) and step.text.startswith("podman run")
                   for step in self.steps):
                shells[True] = Shell(home, True)
                shells[True].type(ROOTS_OWN)
                self.not_run = shells[True].type(PROBE) != ["works"]
                if self.not_run:
                    return
            for step in self.steps:
                root = isinstance(step, File) or step.root
                if isinstance(step, Command) and BUILDS.match(step.text):
                    continue
                if root not in shells:
                    shells[root] = Shell(home, root)
                    shells[root].type(ROOTS_OWN if root else "")
                if isinstance(step, File):
                    shells[root].type("mkdir -p %s; cat > %s << 'END'\n%s\nEND" % (
                        os.path.dirname(step.path), step.path, "\n".join(step.lines)))
                    continue
                typed = step.text
                if registry:
                    typed = typed.replace("localhost:5000", registry.port)
                said = shells[root].type(typed)
                if registry:
                    said = [line.replace(registry.port, "localhost:5000") for line in said]
                said = [line.replace(home, "/home/user") for line in said]
                self.compare(step, said, ids)
        finally:
            for shell in shells.values():
                shell.end()
            if registry:
                registry.end()

    def compare(self, step, said, ids):
        """Prints where the output differs from the page."""
        self.typed += 1
        ids.began = ids.began or bool(MAKES.match(step.text))
        expected, sizes = list(step.expected), bool(SIZES_DIFFER.match(step.text))
        while expected and not expected[-1]:
            expected.pop()
        if re.match(r"strata (load|pull|push) ", step.text):
            # Layers end in any order.
            order = {masked(line, sizes): at for at, line in reversed(list(enumerate(expected)))}
            said.sort(key=lambda line: order.get(masked(line, sizes), len(order)))
        if len(said) == len(expected):
            said = [ids.meet(*pair) for pair in zip(said, expected)]
        said = [ids.translate(line) for line in said]
        if not ids.began:
            for line in said:
                ids.known.update(id[:12] for id in ID.findall(line))
        is_, should = ([masked(line, sizes) for line in lines] for lines in (said, expected))
        if is_ == should:
            return
        self.wrong += 1
        self.changes.append((step, said))
        print("WRONG, %s:%d: $ %s" % (self.name, step.at + 1, step.text))
        for line in is_:
            print("   %s %s" % (" " if line in should else "+", line))
        for line in should:
            if line not in is_:
                print("   - %s" % line)

    def update(self):
        """Writes the output into the page."""
        for step, said in reversed(self.changes):
            self.lines[step.at + 1:step.at + 1 + len(step.expected)] = said
        with open(self.path, "w", encoding="utf-8") as out:
            out.write("\n".join(self.lines))


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in kept}


def dead_links():
    """Links of the documents without a target."""
    documents = [os.path.join(TOP, name) for name in os.listdir(TOP) if name.endswith(".md")]
    for directory, _, names in os.walk(os.path.join(TOP, "docs")):
        documents += [os.path.join(directory, name) for name in names if name.endswith(".md")]
    for path in sorted(documents):
        with open(path, encoding="utf-8") as document:
            text = re.sub(r"```.*?```", "", document.read(), flags=re.S)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"\w+:", link):
                continue
            name, _, anchor = link.partition("#")
            target = os.path.join(os.path.dirname(path), name) if name else path
            found = os.path.exists(target)
            if found and anchor:
                with open(target, encoding="utf-8") as other:
                    found = anchor in anchors(other.read())
            if not found:
                yield "%s: %s leads nowhere" % (os.path.relpath(path, TOP), link)


def main(arguments):
    update = "--update" in arguments
    bin_dir, *paths = [argument for argument in arguments if argument != "--update"]
    guide = os.path.join(TOP, "docs", "guide")
    pages = [Page(os.path.abspath(path)) for path in paths] or [
        Page(os.path.join(TOP, "README.md")),
        *(Page(os.path.join(guide, name)) for name in sorted(os.listdir(guide)))]
    os.umask(0o022)
    base = tempfile.mkdtemp(prefix="strata-guide.", dir=os.environ.get("TMPDIR", "/var/tmp"))
    os.chmod(base, 0o755)
    # Another user may not be able to reach the repository and the programs.
    shutil.copytree(os.path.join(TOP, "tests/fixtures"), os.path.join(base, "tests/fixtures"))
    os.makedirs(os.path.join(base, "bin"))
    for program in "strata", "strata-overlay":
        shutil.copy(os.path.join(bin_dir, program), os.path.join(base, "bin", program))
    try:
        for page in pages:
            page.run(base)
            became = "%d WRONG" % page.wrong if page.wrong else "as it says"
            if page.not_run:
                became = "NOT RUN: podman and buildah run no containers here"
            print("%s: %d commands, %s" % (page.name, page.typed, became))
            if update:
                page.update()
    finally:
        remove = ["rm", "-rf", "--one-file-system", base]
        subprocess.run(remove if os.geteuid() == 0 else ["sudo"] + remove, check=True)
    wrong = list(dead_links())
    with open(os.path.join(TOP, "README.md"), encoding="utf-8") as text:
        if len(text.readlines()) > README_LINES:
            wrong.append("README.md: longer than %d lines" % README_LINES)
    print("\n".join(wrong), end="\n" if wrong else "")
    if wrong or any(page.wrong for page in pages):
        sys.exit(1)
    if not paths and sum(page.typed for page in pages) < 100:
        sys.exit("guide: too few commands were found")
    sys.exit(77 if any(page.not_run for page in pages) else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
