"""Charts as SVG, by matplotlib.

The model: a chart is a figure that `save` writes; the same figures give the same file, byte for
byte. Text stays text. Each peer has its colour in all charts.
"""
import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "strata", "font.size": 8,
                            "axes.spines.top": False, "axes.spines.right": False})
from matplotlib import pyplot  # noqa: E402  (the backend has to be chosen first)

COLOURS = {"strata": "#c8502d", "strata passthrough": "#e8a33d", "fuse-overlayfs 1": "#8fa3b8",
           "fuse-overlayfs 2": "#4d6b8a", "squashfuse": "#9bb58a", "erofsfuse": "#5f8a55",
           "podman": "#8fa3b8", "skopeo": "#4d6b8a", "umoci": "#9bb58a", "containerd": "#5f8a55"}


def bars(groups, axis):
    """Horizontal bars on a logarithmic axis: [(label, {peer: value})]."""
    peers = [peer for peer in COLOURS if any(peer in values for _, values in groups)]
    height = 1.2 + len(groups) * (0.12 * len(peers) + 0.08)
    figure, axes = pyplot.subplots(figsize=(7.5, height), layout="constrained")
    step = len(peers) + 1
    for index, peer in enumerate(peers):
        places = [at * step + index for at, (_, values) in enumerate(groups) if peer in values]
        widths = [values[peer] for _, values in groups if peer in values]
        # A bar grows from 1, the base, to either side.
        axes.barh(places, [width - 1 for width in widths], left=1, height=0.9,
                  color=COLOURS[peer], label=peer)
        for place, width in zip(places, widths):
            axes.annotate("%.2f" % width, (width, place), xytext=(2 if width >= 1 else -2, 0),
                          textcoords="offset points", va="center", fontsize=5,
                          ha="left" if width >= 1 else "right")
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks([at * step + (len(peers) - 1) / 2 for at in range(len(groups))],
                    [label for label, _ in groups])
    axes.invert_yaxis()
    axes.margins(x=0.1, y=0.01)
    axes.set_xlabel(axis)
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1), ncols=len(peers), frameon=False)
    return figure


def curves(panels):
    """One panel for each section, both axes logarithmic: {section: {label: [(size, value)]}}."""
    rows = (len(panels) + 1) // 2
    figure, grid = pyplot.subplots(rows, 2, figsize=(7.5, 3 * rows), layout="constrained",
                                   squeeze=False)
    flat = [axes for row in grid for axes in row]
    for axes, (section, lines) in zip(flat, panels.items()):
        for label, points in sorted(lines.items()):
            points = sorted(points)
            axes.plot([size for size, _ in points], [value for _, value in points], marker="o",
                      markersize=3, label=label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(section)
        axes.set_ylabel("seconds")
        axes.legend(fontsize=6, frameon=False)
    for axes in flat[len(panels):]:
        axes.remove()
    return figure


def save(figure, path):
    """Writes the SVG without date, with spaces at no line's end."""
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    with open(path, encoding="utf-8") as file:
        lines = [line.rstrip() for line in file]
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
