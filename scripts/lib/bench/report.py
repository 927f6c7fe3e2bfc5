"""Makes docs/BENCHMARKS.md from the JSON documents.

The model: nothing here measures. Every table is made from the documents that exist: first the
goals, met or not, with the number of processors that each figure was taken on; then each part:
machine, one table for each section with the median, the range, and the ratio to the base (the peer
named in BASES, measured in the same run), then the peers that are absent and those that failed,
with the reason.
"""
import os

import charts
from goals import GOALS
from results import load_all, processors, show

BASES = {"import": "tar", "pull": "podman", "mount": "overlayfs", "read": "overlayfs", "write": "overlayfs",
         "nodes": "overlayfs", "growth": None}
ORDER = ["tar", "overlayfs", "strata", "strata passthrough", "fuse-overlayfs 1",
         "fuse-overlayfs 2", "squashfuse", "erofsfuse", "podman", "skopeo", "umoci", "containerd"]

INTRO = """# Benchmarks

Made by `scripts/bench`, from the figures in [%(kept)s](%(kept)s); do not edit. What each part does
is told at the top of its file in `scripts/lib/bench/`. In short: all peers of a row are measured in
the same run, in turns (A B C, B A C, C A B); a figure is the median, with the smallest and the
largest below; a ratio in bold is to the base of its table. What keeps each figure where it is:
[decisions](decisions/).

"""


def write(page, kept, link):
    """Writes the page and its charts."""
    documents = load_all(kept)
    text = [INTRO % {"kept": link}]
    if any(document.get("quick") for document in documents.values()):
        text.append("**A quick run**: small generated images, no goals.\n\n")
    else:
        text.append(goals(documents))
    for name in [name for name in BASES if name in documents]:
        text.append(part(name, documents[name], kept, link))
    with open(page, "w", encoding="utf-8") as file:
        file.write("".join(text).rstrip() + "\n")


def goals(documents):
    """The table of goals."""
    lines = ["## Goals\n\nOf several rows the worst counts; it is named.\n\n",
             "| goal | bound | figure | processors | |\n|---|---|---|---|---|\n"]
    judged = [goal.judge(documents) for goal in GOALS]
    for text, figure, bound, met, row in judged:
        word = {True: "met", False: "**not met**", None: ""}[met]
        count = processors(row) if row else ""
        lines.append("| %s | %s | %s | %s | %s |\n" % (text, bound, figure, count, word))
    count = sum(1 for *_, met, _row in judged if met)
    lines.append("\n%d of %d are met.\n\n" % (count, len(judged)))
    return "".join(lines)


def part(name, document, kept, link):
    """One part."""
    text = ["## %s\n\n" % name.capitalize()]
    rows = document["rows"]
    machines = {}
    for row in rows:
        machines.setdefault(row["machine"], {})[row["section"]] = None
    where = "; %(system)s, %(file_system)s" % document["machine"]
    if len(machines) == 1:
        text.append("%s%s.\n" % (*machines, where))
    else:
        text += ["* %s%s: %s\n" % (machine, where, ", ".join(sections))
                 for machine, sections in sorted(machines.items())]
        text.append("\n")
    dates = sorted(row["date"] for row in rows)
    repeats = sorted({row["repeat"] for row in rows})
    text.append("Measured %s to %s UTC, repeats %s, load of the machine before a row %.1f to "
                "%.1f.\n\n" % (dates[0], dates[-1], " or ".join(map(str, repeats)),
                               min(row["load"] for row in rows), max(row["load"] for row in rows)))
    chart = growth_chart(document) if name == "growth" else ratio_chart(name, document)
    if chart:
        charts.save(chart, os.path.join(kept, name + ".svg"))
        text.append("![%s](%s/%s.svg)\n\n" % (name, link, name))
    for section in dict.fromkeys(row["section"] for row in rows):
        text.append(table(name, section, [row for row in rows if row["section"] == section]))
    if document["absent"]:
        text.append("Without figures:\n\n")
        text += ["* %s: %s\n" % each for each in sorted(document["absent"].items())]
    failed = [(row["work"], row["state"], peer, why) for row in rows
              for peer, why in row["failed"].items()]
    text += ["* %s %s: %s failed: %s\n" % each for each in failed]
    text.append("\nVersions: %s.\n\n" % "; ".join(
        "%s: %s" % each for each in sorted(document["versions"].items())))
    return "".join(text)


def table(name, section, rows):
    """The rows of a section, one column for each peer."""
    base = BASES[name]
    peers = [peer for peer in ORDER if any(peer in row["peers"] for row in rows)]
    head = ["work", *("%s%s" % (peer, " (base)" if peer == base else "") for peer in peers)]
    text = ["### %s\n\n| %s |\n|%s\n" % (section, " | ".join(head), "---|" * len(head))]
    for row in sorted(rows, key=lambda row: (row["work"], row["state"], number(row["input"]))):
        label = ", ".join(word for word in (row["work"], row["state"], row["input"]) if word)
        cells = [cell(row, peer, base) for peer in peers]
        text.append("| %s | %s |\n" % (label, " | ".join(cells)))
    extra = details(rows, peers)
    return "".join(text) + "\n" + extra


def cell(row, peer, base):
    """Median, ratio and range."""
    got = row["peers"].get(peer)
    if got is None:
        return "failed" if peer in row["failed"] else ""
    said = show(got["median"], row["unit"])
    against = row["peers"].get(base)
    if against and peer != base and against["median"]:
        said += " **%.2f**" % (got["median"] / against["median"])
    if got["min"] != got["max"]:
        said += "<br><sub>%s to %s</sub>" % (show(got["min"], row["unit"]),
                                            show(got["max"], row["unit"]))
    return said


def details(rows, peers):
    """CPU, memory and bytes written, where they were measured."""
    fields = {"cpu": ("CPU seconds of the command", "s"), "daemon_cpu": ("of the daemon", "s"),
              "peak_kb": ("peak memory", "kB"), "written_kb": ("written", "kB"),
              "upper_kb": ("upper", "kB")}
    lines = []
    for row in rows:
        if row["unit"] != "s":
            continue
        label = ", ".join(word for word in (row["work"], row["state"], row["input"]) if word)
        for peer in peers:
            seen = row["peers"].get(peer, {})
            said = ["%s %s" % (name, show(seen[field], unit))
                    for field, (name, unit) in fields.items() if field in seen]
            if said:
                lines.append("| %s | %s | %s |\n" % (label, peer, ", ".join(said)))
    if not lines:
        return ""
    return ("<details><summary>CPU, memory, bytes</summary>\n\n| work | peer | medians |\n"
            "|---|---|---|\n" + "".join(lines) + "\n</details>\n\n")


def number(text):
    """Sizes in their order, other inputs unchanged."""
    return (int(text), "") if text.isdigit() else (0, text)


def ratio_chart(name, document):
    """Bars: each row's ratios to the base."""
    base, groups = BASES[name], []
    for row in document["rows"]:
        against = row["peers"].get(base)
        if row["unit"] != "s" or not against or not against["median"]:
            continue
        label = ", ".join(word for word in (row["section"] if name == "import" else "",
                                            row["work"], row["state"]) if word)
        groups.append((label, {peer: row["peers"][peer]["median"] / against["median"]
                               for peer in ORDER if peer in row["peers"] and peer != base}))
    return charts.bars(groups, "time, %s = 1" % base) if groups else None


def growth_chart(document):
    """Curves: strata's figures against size, one panel for each section."""
    panels = {}
    for row in document["rows"]:
        mine = row["peers"].get("strata")
        if mine and row["unit"] == "s" and row["input"].isdigit():
            label = ", ".join(word for word in (row["work"], row["state"]) if word)
            panels.setdefault(row["section"], {}).setdefault(label, []).append(
                (int(row["input"]), mine["median"]))
    return charts.curves(panels) if panels else None
