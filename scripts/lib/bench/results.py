"""Results as JSON, one document for each part.

The model: a part (`import`, `read`, ...) has rows. A row is one kind of work in one state on one
input, measured for several peers in the same run; its key is (section, work, state, input), and
measuring it again replaces it. A document is written after every row, so an interrupted run keeps
its rows. Each row has the machine, the time of the measurement, the number of
repeats, and the load before it; the document has the other facts of the machine and the versions,
those of its last run.
"""
import json
import os
import re
import time

from measure import paired


class Part:
    """The rows of one part, on disk at PATH."""

    def __init__(self, path, name, facts):
        self.path = path
        self.document = {"part": name, "rows": [], "absent": {}}
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                self.document = json.load(file)
        self.document.update(facts)

    def absent(self, peer, reason):
        """Says why a peer has no figures (anywhere, or in the work that `peer` names)."""
        self.document["absent"][peer] = reason
        self.save()

    def row(self, section, work, peers, failed, state="", given="", unit="s", repeat=1, note=""):
        """Adds or replaces a row and shows it."""
        row = {"section": section, "work": work, "state": state, "input": given, "unit": unit,
               "repeat": repeat, "note": note, "load": os.getloadavg()[0],
               "machine": machine_of(self.document["machine"]),
               "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
               "peers": peers, "failed": failed}
        key = key_of(row)
        self.document["rows"] = [old for old in self.document["rows"] if key_of(old) != key]
        self.document["rows"].append(row)
        self.save()
        figures = ["%s %s" % (peer, show(got["median"], unit)) for peer, got in peers.items()]
        figures += ["%s FAILED (%s)" % each for each in failed.items()]
        name = " ".join(word for word in (section, work, state, given) if word)
        bounds = paired(*(got["samples"] for got in peers.values())) if len(peers) == 2 else None
        if bounds:
            figures.append("of it %.2f (%.2f to %.2f)" % bounds)
        print("  %-46s %s" % (name, ", ".join(figures)), flush=True)

    def save(self):
        """Writes the document, one row a line."""
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        lines = ",\n".join("    " + json.dumps(rounded(row), sort_keys=True)
                           for row in sorted(self.document["rows"], key=key_of))
        head = {key: value for key, value in self.document.items() if key != "rows"}
        text = json.dumps(head, indent=1, sort_keys=True)[:-2]
        text += ',\n "rows": [\n' + lines + "\n ]\n}\n"
        with open(self.path + ".new", "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(self.path + ".new", self.path)


def machine_of(facts):
    """The facts that a figure depends on most."""
    return "%(cpu)s, %(cores)s cores, %(memory_gib)s GiB; Linux %(kernel)s" % facts


def processors(row):
    """The number of processors of the machine on which a row was measured."""
    return int(re.search(r", (\d+) cores, ", row["machine"]).group(1))


def key_of(row):
    """What makes a row the same row."""
    return row["section"], row["work"], row["state"], row["input"]


def rounded(value):
    """Figures with no more digits than their accuracy allows."""
    if isinstance(value, float):
        return float("%.4g" % value)
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return value


def show(value, unit):
    """A figure for people."""
    if unit == "s":
        if value < 0.1:
            return "%.3g ms" % (value * 1e3)
        return "%.3g s" % value
    if unit == "kB":
        return "%.3g MB" % (value / 1024)
    return "%.4g %s" % (value, unit)


def load_all(directory):
    """{part: document} of what is in a directory."""
    found = {}
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        if name.endswith(".json"):
            with open(os.path.join(directory, name), encoding="utf-8") as file:
                found[name[:-5]] = json.load(file)
    return found
