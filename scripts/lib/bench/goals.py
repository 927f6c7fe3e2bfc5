"""The goals, and whether the figures meet them.

The model: a goal names rows (part, section, work, state; empty means any), the peer whose figure
counts (by default strata), the divisor (a peer of the same row, or another row of
strata, or nothing), and the bound. Of several rows the worst counts. A goal without figures is
shown as not measured; a goal that is not met is shown as such.
"""
from results import show


class Goal:
    """One goal. `base` is the peers that it is a ratio to (the best of them), or a state of the
    same row, or None; `field` is what of a summary is looked at."""

    def __init__(self, text, part, section, work, state, bound, base=None, peer="strata",
                 field="median", at_least=False, given=None):
        self.text, self.part, self.section, self.work, self.state = text, part, section, work, state
        self.bound, self.base, self.peer, self.field = bound, base, peer, field
        self.at_least, self.given = at_least, given

    def rows(self, documents):
        for row in documents.get(self.part, {}).get("rows", []):
            wanted = (("section", self.section), ("work", self.work), ("state", self.state),
                      ("input", self.given))
            if all(not want or (row[key] in want if isinstance(want, tuple) else row[key] == want)
                   for key, want in wanted):
                yield row

    def figure(self, row, documents):
        """The figure of one row, or None."""
        mine = row["peers"].get(self.peer)
        if mine is None or self.field not in mine:
            return None
        if self.base is None:
            return mine[self.field]
        if isinstance(self.base, str):
            other = [each for each in documents[self.part]["rows"]
                     if each["state"] == self.base and each["work"] == row["work"]
                     and each["section"] == row["section"] and each["input"] == row["input"]]
            bases = [each["peers"][self.peer][self.field] for each in other
                     if self.peer in each["peers"]]
        else:
            bases = [row["peers"][peer][self.field] for peer in self.base if peer in row["peers"]]
        return mine[self.field] / min(bases) if bases and min(bases) else None

    def judge(self, documents):
        """(text, figure, bound, met, row): `met` and `row`, whose figure it is, are None if nothing
        was measured."""
        found = [(self.figure(row, documents), row) for row in self.rows(documents)]
        found = [(figure, row) for figure, row in found if figure is not None]
        sign = ">=" if self.at_least else "<="
        if not found:
            return self.text, "not measured", "%s %s" % (sign, self.bound), None, None
        worst = (min if self.at_least else max)(found, key=lambda each: each[0])
        figure, row = worst
        met = figure >= self.bound if self.at_least else figure <= self.bound
        unit = "kB" if self.field.endswith("_kb") else row["unit"]
        said = "%.2f" % figure if self.base is not None else show(figure, unit)
        bound = "%.2f" % self.bound if self.base is not None else show(self.bound, unit)
        if len(found) > 1:
            said += " (%s)" % " ".join(word for word in (row["work"], row["input"]) if word)
        return self.text, said, "%s %s" % (sign, bound), met, row


KERNEL = ["overlayfs"]
FO1, FO2 = ["fuse-overlayfs 1"], ["fuse-overlayfs 2"]
IN_KERNEL = "strata kernel"
META = ("find -ls", "stat storm", "negative lookups")
DATA = ("grep -r", "tar c", "small files")
BIG = ("big file, sequential", "big file, random")
STORES = ("podman", "skopeo", "umoci", "containerd")

GOALS = [
    Goal("gzip image, of sequential tar", "import", "gzip", "load", "first", 0.45, ["tar"]),
    *[Goal("gzip image, of " + peer, "import", "gzip", "load", "first", 0.25, [peer])
      for peer in STORES[1:]],
    Goal("image that is present", "import", None, "load", "second", 0.020),
    Goal("rebuilt image, of its first load", "import", "rebuilt", "load", "rebuilt", 0.8, "first"),
    Goal("peak memory of an import", "import", None, "load", None, 100 * 1024, field="peak_kb"),
    *[Goal("%s, %s, of overlayfs" % (name, state), "read", None, works, state, bound, KERNEL)
      for name, works, bounds in (
          ("find, stat, negative lookups", META, (1.0, 1.15, 2.5)),
          ("grep, tar, small files", DATA, (1.1, 1.1, 5.0)),
          ("import pandas", ("import pandas",), (1.1, 1.2, 1.5)))
      for state, bound in zip(("warm", "cold", "fresh"), bounds)],
    *[Goal("%s, %s, kernel's mount, of overlayfs" % (name, state), "read", None, works, state, bound,
           KERNEL, peer=IN_KERNEL)
      for name, works, bounds in (
          ("find, stat, negative lookups", META, (1.0, 0.8, 1.1)),
          ("grep, tar, small files", DATA, (1.0, 0.8, 1.1)),
          ("import pandas", ("import pandas",), (1.0, 1.0, 1.0)))
      for state, bound in zip(("warm", "cold", "fresh"), bounds)],
    Goal("every kind of write, kernel's mount, of overlayfs with its options", "write", None, None,
         None, 1.05, ["overlayfs metacopy"], peer=IN_KERNEL),
    Goal("command to first ls, kernel's mount, first mount", "mount", "first-ls", None, "first", 0.080,
         peer=IN_KERNEL),
    *[Goal("big file, passthrough, %s, of overlayfs" % state, "read", "big", BIG, state, bound,
           KERNEL, peer="strata passthrough")
      for state, bound in (("warm", 1.05), ("cold", 1.2), ("fresh", 1.4))],
    Goal("find, stat, negative lookups, fresh, of fuse-overlayfs 2", "read", None, META, "fresh",
         0.5, FO2),
    Goal("grep, tar, small files, fresh, of fuse-overlayfs 2", "read", None, DATA, "fresh", 1.0,
         FO2),
    Goal("command to first ls, tree cached", "mount", "first-ls", None, "cached", 0.015),
    Goal("command to first ls, first mount", "mount", "first-ls", None, "first", 0.100),
    Goal("daemon, resident memory", "mount", "daemon", "resident memory", None, 10 * 1024),
    Goal("daemon, anonymous memory", "mount", "daemon", "anonymous memory", None, 4 * 1024),
    Goal("peak memory of a load, any size", "growth", None, "load", None, 100 * 1024,
         field="peak_kb"),
    Goal("daemon, resident memory, any size", "growth", None, "resident memory", None, 10 * 1024),
    Goal("daemon, anonymous memory, any size", "growth", None, "anonymous memory", None, 4 * 1024),
    Goal("every kind of write, of the faster fuse-overlayfs", "write", None, None, None, 1.0,
         FO1 + FO2),
    Goal("create/stat/unlink storm, of fuse-overlayfs 2", "write", "storm", None, None, 0.5, FO2),
    Goal("rm -rf of a lower tree, of fuse-overlayfs 2", "write", "trees",
         "rm -rf of a lower tree", None, 0.5, FO2),
    Goal("chown -R of a lower tree, of the faster fuse-overlayfs", "write", "trees",
         "chown -R of a lower tree", None, 0.1, FO1 + FO2),
    Goal("I/O on upper files, time of overlayfs", "write", "fio", None, None, 1.05, KERNEL),
    Goal("slowest lookup beside a copy-up", "write", "copy-up", "slowest lookup meanwhile", None,
         0.005),
    Goal("containerd, pull of ten images, of overlayfs", "nodes", "pull", "pull and unpack", None, 0.40,
         KERNEL),
    *[Goal("containerd, disk after it, %s, of overlayfs" % way, "nodes", "pull", "disk", way, bound,
           KERNEL) for way, bound in (("ctr", 0.90), ("CRI", 0.65))],
    Goal("containerd, prepare and mount of a container, of overlayfs", "nodes", "pull",
         ("prepare and mount, first", "prepare and mount, again"), None, 1.1, KERNEL),
    Goal("strata-snapshotter, resident memory", "nodes", "pull", "resident memory", None, 25 * 1024),
    Goal("List, Stat, Usage, 1,000 snapshots", "nodes", "snapshots", ("List", "Stat", "Usage"), None,
         0.050, peer="strata direct"),
    Goal("images, 1,000 in the store", "growth", "store", "images", None, 0.1, given="1000"),
    Goal("df, 1,000 images", "growth", "store", "df", None, 1.0, given="1000"),
    Goal("index, bytes per entry", "growth", ("entries", "layers", "width", "store"),
         "index, bytes per entry", None, 200),
    Goal("tree, bytes per entry", "growth", ("entries", "width"), "tree, bytes per entry", None,
         200),
]
