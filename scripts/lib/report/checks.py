"""Checks pages of strata report in a headless Chromium.

usage: checks.py DIR

DIR/NAME.html are pages, DIR/NAME.json the output of `strata df --format json` for the same store,
for the NAMEs below. Every check prints what it saw; the exit status is 0 only if all checks passed.
"""
import json
import os
import sys

from browser import Browser
from stores import HOSTILE

bad = 0


def check(what, is_, should=True):
    """Prints whether a check passed."""
    global bad
    if is_ == should:
        print("ok: %s" % what)
    else:
        bad += 1
        print("WRONG: %s: %.600r, not %.600r" % (what, is_, should))


# Sizes that exceed their scrolled element or the window, or that are drawn in two lines.
CUT_NUMBERS = """
return [...document.querySelectorAll('data, .figure, .number')].filter((node) => {
  if (!node.offsetParent || node.closest('#matrix-table, .visually-hidden')) return false;
  const box = node.getBoundingClientRect();
  const place = node.closest('.scroll, .card').getBoundingClientRect();
  return box.width < 2 || box.left < place.left || box.right > place.right + 0.5 ||
    node.scrollWidth > Math.ceil(box.width) ||
    node.matches('data') && node.getClientRects().length > 1;
}).map((node) => node.textContent)"""

# Text of charts, with where it is drawn.
TEXTS = """
const texts = [...document.querySelectorAll('.chart')].filter((node) => node.offsetParent)
  .flatMap((node) => {
    const all = node.chart.getZr().storage.getDisplayList(true);
    return all.filter((one) => one.type === 'tspan' && !one.ignore && !one.invisible &&
        one.style.text && one.style.opacity !== 0).map((one) => {
      const box = one.getBoundingRect().clone();
      const turned = one.transform && Math.abs(one.transform[1]) > 0.01;
      if (one.transform) box.applyTransform(one.transform);
      return { chart: node, text: one.style.text, box, turned, host: one.parent.__hostTarget };
    });
  });
"""

# Text that does not fit into its chart; on the map, into its tile.
CUT_IN_CHARTS = TEXTS + """
return texts.filter(({ chart, box, host }) => {
  const tile = chart.id === 'map' && host && host.getBoundingRect();
  return box.x < -1 || box.x + box.width > chart.clientWidth + 1 ||
    box.y < -1 || box.y + box.height > chart.clientHeight + 1 ||
    tile && box.width > tile.width;
}).map(({ chart, text }) => `${chart.id}: ${text}`)"""

# Pairs of texts of one chart that overlap; slanted texts are left out.
OVER_EACH_OTHER = TEXTS + """
const found = [];
for (const [at, one] of texts.entries()) {
  for (const other of texts.slice(at + 1)) {
    if (one.chart !== other.chart || one.turned || other.turned) continue;
    const across = Math.min(one.box.x + one.box.width, other.box.x + other.box.width) -
      Math.max(one.box.x, other.box.x);
    const down = Math.min(one.box.y + one.box.height, other.box.y + other.box.height) -
      Math.max(one.box.y, other.box.y);
    if (across > 1 && down > 3) found.push(`${one.chart.id}: ${one.text} on ${other.text}`);
  }
}
return found"""


class Page:
    """One open page, and queries on it."""

    def __init__(self, browser, directory, name):
        self.browser, self.name = browser, name
        self.path = os.path.join(directory, name + ".html")
        with open(os.path.join(directory, name + ".json"), encoding="utf-8") as text:
            self.df = json.load(text)
        browser.console(), browser.requests()
        browser.open(self.path)

    def say(self, what):
        return "%s: %s" % (self.name, what)

    def bytes_of(self, id_):
        return self.browser.run("return Number(document.getElementById(arguments[0]).value)", id_)

    def crumbs(self):
        return self.browser.run("return [...document.querySelectorAll('#crumbs li')]"
                                ".map((li) => li.textContent)")

    def rows(self):
        """The map's table: name, part of disk, size, whether it can be walked into."""
        return self.browser.run(
            "return [...document.querySelectorAll('#map-table tbody tr')].map((tr) => ["
            "tr.querySelector('.name').textContent, ...[...tr.querySelectorAll('data')]"
            ".map((data) => Number(data.value)), tr.querySelector('button') !== null])")

    def walk(self, row):
        self.browser.run("document.querySelectorAll('#map-table tbody tr')[arguments[0]]"
                         ".querySelector('button').click()", row)

    def box(self, id_):
        """The place of an element in the window, after it is scrolled into view."""
        return self.browser.run(
            "const at = document.getElementById(arguments[0]); at.scrollIntoView();"
            "const box = at.getBoundingClientRect(); return [box.x, box.y, box.width, box.height]",
            id_)

    def text(self, id_):
        return self.browser.run("return document.getElementById(arguments[0]).textContent", id_)


def loads(page):
    """It is small, it is drawn, it makes no request and logs no message."""
    check(page.say("less than 5 MB"), os.path.getsize(page.path) < 5_000_000)
    check(page.say("it is drawn"),
          page.browser.run("return document.documentElement.dataset.ready || "
                           "document.querySelector('main').textContent.slice(0, 300)"), "yes")
    check(page.say("nothing on the console"), page.browser.console(), [])
    check(page.say("nothing is asked for but the file"),
          [url for url in page.browser.requests() if not url.startswith("data:")],
          ["file://" + page.path])


def equals_df(page):
    """Every number of strata df is on the page, to the byte."""
    df = page.df
    check(page.say("stored"), page.bytes_of("total-stored"), df["stored"])
    check(page.say("apparent"), page.bytes_of("total-apparent"), df["apparent"])
    check(page.say("saved"), page.bytes_of("total-saved"), df["apparent"] - df["stored"])
    check(page.say("on disk"), page.bytes_of("total-disk"), df["disk"]["total"]["blocks"] * 512)
    parts = page.browser.run(
        "return [...document.querySelectorAll('#disk-table tbody tr')].map((tr) => "
        "[tr.firstChild.textContent.toLowerCase(), ...[...tr.querySelectorAll('data')]"
        ".map((data) => Number(data.value))])")
    check(page.say("every part on disk"), sorted(parts), sorted(
        [part, of["bytes"], of["blocks"] * 512] for part, of in df["disk"].items()))
    levels = page.browser.run("return [...document.querySelectorAll('#levels-table data')]"
                              ".map((data) => Number(data.value))")
    check(page.say("levels of sharing"), levels[:3],
          [df["apparent"], df["layered"], df["stored"]])
    if page.name == "ten":
        # Three more ways to cut, and no piece of a file is larger than the file.
        check(page.say("levels that were measured"), len(levels), 6)
        check(page.say("what pieces take"), [0 < taken <= df["stored"] for taken in levels[3:]],
              [True] * 3)
    totals = json.loads(page.text("data"))["totals"]
    for name in ("entries", "files", "apparent", "layered", "stored"):
        check(page.say("data: " + name), totals[name], df[name])
    mine = json.loads(page.text("data"))["layers"]
    theirs = {layer["diff_id"]: layer for layer in df["layers"]}
    for name in ("entries", "apparent", "stored", "shared", "images"):
        check(page.say("data: %s of layers" % name), [layer[name] for layer in mine],
              [theirs[layer["diff_id"]][name] for layer in mine])


def walks(page):
    """By mouse and by keys, to a file and back."""
    browser = page.browser
    check(page.say("the trail begins at the store"), page.crumbs(), ["Store"])
    rows = page.rows()
    data = json.loads(page.text("data"))
    check(page.say("the parts of the disk add up to the store"), sum(row[1] for row in rows),
          data["totals"]["stored"])
    # The largest image is the tile on the top left; its first line is its own, below are layers.
    x, y, width, _ = page.box("map")
    first = rows[0][0]
    browser.click(x + 12, y + 9)
    check(page.say("a click on a tile walks in"), page.crumbs(), ["Store", first])
    layers = page.rows()
    browser.click(x + 30, y + 60)
    check(page.say("a click on a tile in it walks on"), page.crumbs()[:2], ["Store", first])
    check(page.say("one step at least"), len(page.crumbs()) > 2)
    browser.run("document.getElementById('map').focus()")
    while len(page.crumbs()) > 2:
        browser.press("Backspace")
    check(page.say("Backspace walks up"), page.rows(), layers)
    browser.press("Escape")
    check(page.say("Escape walks up"), page.rows(), rows)
    browser.press("Escape")
    check(page.say("there is nothing above the store"), page.crumbs(), ["Store"])
    browser.press("Home")
    check(page.say("keys choose a tile, aloud"), page.text("map-said").startswith(first + ","))
    browser.press("ArrowRight")
    check(page.say("and the next"), not page.text("map-said").startswith(first + ","))
    browser.press("Home", "Enter")
    check(page.say("Enter walks in"), page.crumbs(), ["Store", first])
    browser.hover(x + width / 2, y + 100)
    tip = browser.run("return document.querySelector('.tip')?.textContent || ''")
    check(page.say("a tile tells its bytes"), "byte" in tip)
    # From the largest layer down to a file, each directory's bytes are those of what is in it.
    at = max(range(len(layers)), key=lambda row: layers[row][2] if layers[row][3] else -1)
    page.walk(at)
    files = []
    for _ in range(40):
        inside = page.rows()
        down = next((at for at, row in enumerate(inside) if row[3]), None)
        files += [row[0] for row in inside if not row[3]]
        if down is None:
            break
        above = inside[down][2]
        page.walk(down)
        check(page.say("what is in %s adds up" % page.crumbs()[-1]),
              sum(row[2] for row in page.rows()), above)
    check(page.say("the walk ends at files"), len(files) > 0)
    browser.run("document.querySelector('#crumbs button').click()")
    check(page.say("the trail leads back"), page.rows(), rows)
    check(page.say("nothing was wrong on the way"), browser.console(), [])


def tables(page):
    """Filter, sorting, matrix and layers."""
    browser = page.browser
    data = json.loads(page.text("data"))
    shown = browser.run(
        "return [...document.querySelectorAll('#images-table tbody tr')].map((tr) => "
        "[tr.dataset.image, Object.fromEntries([...tr.querySelectorAll('[data-column]')]"
        ".map((td) => [td.dataset.column, Number(td.querySelector('data').value)]))])")
    check(page.say("every image is in the table"), len(shown), len(data["images"]))
    columns = dict(shown)
    check(page.say("attributed adds up"), sum(row["attributed"] for row in columns.values())
          + data["elsewhere"], data["totals"]["stored"])
    check(page.say("by unique bytes, the largest first"),
          [row["unique"] for _, row in shown],
          sorted((row["unique"] for row in columns.values()), reverse=True))
    theirs = {image["id"]: image for image in page.df["images"]}
    check(page.say("images as strata df has them"), columns, {
        id_: {name: theirs[id_][name] for name in row} for id_, row in columns.items()})
    names = ("apparent", "stored", "unique", "shared", "attributed")
    check(page.say("with all their columns"), [sorted(row) for row in columns.values()],
          [sorted(names)] * len(columns))
    wrong = 0
    for image in data["images"]:
        parts = image["layers"]
        sums = [sum(part[name] for part in parts) for name in ("only", "shared", "charged")]
        wrong += sums != [image["unique"], image["shared"], image["attributed"]]
    check(page.say("images whose layers do not add up to them"), wrong, 0)
    if len(data["images"]) > 1:
        diagonal = [row[-1] for row in data["matrix"]["bytes"]]
        stored = {image["stored"] for image in data["images"]}
        if all(len(row) == 1 for row in data["matrix"]["rows"]):
            check(page.say("the matrix' diagonal is what images hold"), set(diagonal), stored)
        browser.run("document.getElementById('matrix').focus()")
        browser.press("ArrowRight")
        check(page.say("keys walk over the matrix"), " holds " in page.text("matrix-said"))
        browser.press("ArrowRight")
        check(page.say("cell by cell"), " of what either holds" in page.text("matrix-said"))
        browser.run("document.getElementById('matrix-details').open = true")
        browser.settled()
        count = len(data["matrix"]["rows"])
        check(page.say("the matrix as a table"), browser.run(
            "return document.querySelectorAll('#matrix-table td data').length"), count * count)
        browser.run("document.getElementById('matrix-details').open = false")
    browser.run("document.getElementById('growth').focus()")
    browser.press("ArrowDown")
    check(page.say("keys walk over the layers"), page.text("growth-said").startswith("Layer 0, "))
    steps = browser.run("return document.querySelectorAll('#growth-table tbody tr').length")
    check(page.say("a row a layer"), steps,
          max(len(image["layers"]) for image in data["images"]))
    waste = data["waste"]
    check(page.say("a row a wasted content"), browser.run(
        "return document.querySelectorAll('#waste-table tbody tr').length"), len(waste["rows"]))
    if page.name in ("ten", "many"):
        # Every second application deletes the caches of runtimes; and each rewrites a file.
        check(page.say("deleted files are wasted"), any(
            "/var/cache/runtime/" in file["path"] and file["how"] == "deleted"
            for row in waste["rows"] for file in row["files"]))
        check(page.say("each with its cause"), "RUN rm -rf /var/cache/runtime" in browser.run(
            "return document.querySelector('#waste-table tbody td:nth-child(4)').textContent"))
    if page.name == "ten":
        several = [row["count"] for row in waste["rows"] if row["count"] > 1]
        check(page.say("equal contents are one row"), several != [])
        check(page.say("which names its other files"), browser.run(
            "return [...document.querySelectorAll('#waste-table details')].map((details) => "
            "details.querySelectorAll('li').length)"), [count - 1 for count in several])
        check(page.say("there are fewer contents than files"), waste["contents"] < waste["count"])
    check(page.say("nothing was wrong with the tables"), browser.console(), [])


def colours(page):
    """Light and dark, by the system and by the switch; and on paper."""
    browser = page.browser
    ground = "return getComputedStyle(document.body).backgroundColor"
    pixel = ("const c = document.querySelector('#levels canvas');"
             "return [...c.getContext('2d').getImageData(4, 4, 1, 1).data].length")
    light = browser.run(ground)
    browser.prefer("dark")
    dark = browser.run(ground)
    check(page.say("dark where the system is"), light != dark)
    for choice, should in (("light", light), ("dark", dark)):
        browser.run("document.querySelector(`[data-theme-choice=${arguments[0]}]`).click()", choice)
        check(page.say("the switch makes it " + choice), browser.run(ground), should)
    browser.prefer("light")
    check(page.say("the switch counts for more than the system"), browser.run(ground), dark)
    check(page.say("the charts are still there"), browser.run(pixel), 4)
    browser.open(page.path)
    check(page.say("the choice is kept"), browser.run(ground), dark)
    browser.run("document.querySelector('[data-theme-choice=auto]').click()")
    check(page.say("and given back to the system"), browser.run(ground), light)
    paper = browser.devtools("Page.printToPDF", printBackground=True)["data"]
    check(page.say("it can be printed"), len(paper) > 20_000)
    check(page.say("nothing was wrong in any colour"), browser.console(), [])


def usable(page):
    """Each chart has a name and can be reached by Tab."""
    browser = page.browser
    unnamed = browser.run(
        "return [...document.querySelectorAll('[role=application], [role=region], input, select')]"
        ".filter((node) => node.offsetParent && !node.getAttribute('aria-label') && !node.getAttribute('aria-labelledby')"
        " && !node.closest('label')).map((node) => node.id)")
    check(page.say("everything has a name"), unnamed, [])
    charts = set(browser.run("return [...document.querySelectorAll('.chart')].filter((node) => "
                             "node.offsetParent).map((node) => node.id)"))
    browser.run("document.querySelector('#images-filter').value = ''; window.scrollTo(0, 0);"
                "document.activeElement.blur()")
    reached = set()
    for _ in range(150):
        browser.press("Tab")
        reached.add(browser.run("return document.activeElement.id"))
        if charts <= reached:
            break
    check(page.say("Tab reaches every chart"), sorted(charts - reached), [])


def fits(page):
    """In windows of all widths no element is cut or overlaps another."""
    browser = page.browser
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    for width in (400, 768, 1400):
        def say(what):
            return page.say("at %d pixels %s" % (width, what))
        browser.resize(width, 900)
        check(say("the page is as wide as the window"),
              browser.run("return document.documentElement.scrollWidth"), width)
        check(say("no table is wider than its place"), browser.run(
            "return [...document.querySelectorAll('table')].filter((table) => table.offsetParent"
            " && table.id !== 'matrix-table' && table.parentElement.scrollWidth >"
            " table.parentElement.clientWidth).map((table) => table.id)"), [])
        check(say("no number is cut"), browser.run(CUT_NUMBERS), [])
        check(say("no heading of a table is cut"), browser.run(
            "return [...document.querySelectorAll('thead th')].filter((th) => th.offsetParent &&"
            " !th.closest('#matrix-table') && th.clientWidth > 1 &&"
            " th.scrollWidth > th.clientWidth).map((th) => th.textContent)"), [])
        check(say("every legend is above its chart"), browser.run(
            "return [...document.querySelectorAll('.legend.above')].filter((legend) => {"
            " const chart = document.getElementById(legend.id.replace('-legend', ''));"
            " const box = legend.getBoundingClientRect();"
            " return box.height < 10 || box.bottom > chart.getBoundingClientRect().top; })"
            ".map((legend) => legend.id)"), [])
        check(say("charts have no legend inside"), browser.run(
            "return [...document.querySelectorAll('.chart')].filter((node) => node.offsetParent &&"
            " (node.chart.getOption().legend || []).length > 0)"
            ".map((node) => node.id)"), [])
        check(say("what stands in charts is whole"), browser.run(CUT_IN_CHARTS), [])
        check(say("what stands in charts is beside each other"), browser.run(OVER_EACH_OTHER), [])
        folded = browser.run("return [...document.querySelectorAll('table.folded')]"
                             ".map((table) => table.id)")
        if width == 400:
            tables_there = {"images-table"} if hosts_of(page) else {"images-table", "growth-table"}
            check(say("tables are folded"), tables_there <= set(folded))
        check(say("what is folded has its names beside it"), browser.run(
            "return [...document.querySelectorAll('table.folded td')].filter((td) => "
            "!td.dataset.label || td.cellIndex && "
            "getComputedStyle(td, '::before').content === 'none').length"), 0)
        if width == 1400:
            check(say("there is room for the table of images"), "images-table" in folded, False)
    browser.resize(1280, 900)
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = false; })")


def hosts_of(page):
    """How many hosts a page of many stores has; 0 for one of a single store."""
    data = json.loads(page.text("data"))
    return len(data["images"]) if data["hosts"] else 0


def many_stores(page, count):
    """A page of many stores: hosts stand where images stand, and their layers are below them."""
    browser = page.browser
    data = json.loads(page.text("data"))
    check(page.say("all hosts are on it"), hosts_of(page), count)
    shown = browser.run("return [...document.querySelectorAll('#images-table tbody tr')].map((tr) =>"
                        " Object.fromEntries([...tr.querySelectorAll('[data-column]')].map((td) =>"
                        " [td.dataset.column, Number(td.querySelector('data').value)])))")
    check(page.say("every host is in the table"), len(shown), count)
    check(page.say("attributed adds up"), sum(row["attributed"] for row in shown),
          data["totals"]["stored"])
    check(page.say("what is on one host alone"), page.bytes_of("total-stored"),
          data["totals"]["stored"])
    check(page.say("all hosts together hold more than one store of all"),
          data["levels"][0]["bytes"] > data["totals"]["stored"])
    wrong = [host["names"] for host in data["images"]
             if [sum(part[name] for part in host["layers"]) for name in
                 ("only", "shared", "charged")]
             != [host["unique"], host["shared"], host["attributed"]]]
    check(page.say("hosts whose layers do not add up to them"), wrong, [])
    check(page.say("what one store has is not asked of many"), browser.run(
        "return ['growth', 'waste'].filter((id) => document.getElementById(id))"), [])
    said = browser.run("return document.body.innerText")
    for word in ("removing it frees", "in this image alone", "No other image", "The store at"):
        check(page.say("it does not say %r" % word), word.lower() in said.lower(), False)
    check(page.say("it says how many hosts"), "%d hosts" % count in page.text("subtitle"))
    rows = page.rows()
    check(page.say("the map adds up"), sum(row[1] for row in rows), data["totals"]["stored"])
    browser.run("document.querySelectorAll('#images-table tbody tr')[0]"
                ".querySelector('button').click()")
    check(page.say("a host is explained"), "other hosts too" in page.text("here-words") or
          "No other host" in page.text("here-words"))
    check(page.say("its layers add up"), sum(row[1] for row in page.rows()),
          data["images"][0]["attributed"])
    browser.run("document.querySelector('#crumbs button').click()")
    browser.run("document.getElementById('matrix').focus()")
    browser.press("ArrowRight")
    check(page.say("keys walk over the matrix"), " holds " in page.text("matrix-said"))
    check(page.say("nothing was wrong"), browser.console(), [])


def words(page):
    """The page names its store, and explains why an image's tile, its size and UNIQUE differ."""
    browser = page.browser
    data = json.loads(page.text("data"))
    check(page.say("the store's path is named"),
          page.text("subtitle").startswith("The store at %s: " % data["root"]))
    check(page.say("and it is the store's"), os.path.isabs(data["root"]) and
          os.path.basename(data["root"]) in ("ten", "many", "two", "fixtures"))
    for at, image in enumerate(data["images"][:12]):
        browser.run("document.querySelectorAll('#images-table tbody tr')[arguments[0]]"
                    ".querySelector('button').click()", at)
        said = page.text("here-words")
        sizes = [browser.run("const unit = Math.max(0, Math.floor(Math.log10(arguments[0] || 1) / 3));"
                             "return ['B', 'kB', 'MB', 'GB'][unit]", image[name])
                 for name in ("stored", "attributed")]
        check(page.say("%s is explained" % image["names"][0]),
              all("\u202f" + unit in said for unit in sizes) and
              ("Removing it frees" in said) == (image["shared"] > 0))
        check(page.say("and what removing it frees"), page.text("here").count("Removing it frees"), 1)
        browser.run("document.querySelector('#crumbs button').click()")
    check(page.say("the store needs no such words"), page.text("here-words"), "")


def hostile(page):
    """Names that try to be markup or script are text."""
    browser = page.browser
    check(page.say("the title is the page's"), browser.run("return document.title"),
          "Where the bytes are")
    check(page.say("it has the scripts that it should have"),
          browser.run("return document.scripts.length"), 3)
    page.walk(0)
    page.walk(0)
    names = {row[0].rstrip("/") for row in page.rows()}
    check(page.say("all names are there"), len(names) >= len(HOSTILE))
    shown = "\n".join(sorted(names))
    for text in ("\\377\\376 not utf-8 \\200", "line\\nbreak\\ttab\\033[31m", "<img src=x onerror=",
                 "{{data}} {b|bold} {a} ${", "&lt;b&gt; &amp; \\\\u003c", "__proto__", "constructor",
                 "\u65e5\u672c\u8a9e \U0001f433", "\\342\\200\\256to left"):
        check(page.say("%s is text" % text), text in shown)
    x, y, _, _ = page.box("map")
    browser.run("document.getElementById('map').focus()")
    browser.press("Home")
    for _ in HOSTILE:
        browser.press("ArrowRight")
    browser.hover(x + 20, y + 20)
    check(page.say("no object has gained anything"),
          browser.run("return Object.keys(Object.prototype).concat(Object.keys(Object))"), [])
    check(page.say("no element of theirs"),
          browser.run("return document.querySelectorAll('img, iframe, b').length"), 0)
    check(page.say("the title is still the page's"), browser.run("return document.title"),
          "Where the bytes are")
    check(page.say("nothing on the console"), browser.console(), [])
    # And the page's policy would stop a script that did get in.
    browser.run("const script = document.createElement('script');"
                "script.textContent = \"document.title = 'owned'\"; document.body.append(script);"
                "const picture = new Image(); picture.src = 'http://127.0.0.1:9/x';"
                "document.body.append(picture)")
    refused = browser.call("POST", "/execute/async", {"args": [], "script":
                           "fetch('http://127.0.0.1:9/').then(() => arguments[0]('made'), "
                           "() => arguments[0]('refused'))"})
    check(page.say("a script that gets in does not run"), browser.run("return document.title"),
          "Where the bytes are")
    check(page.say("no connection is made"), refused, "refused")
    said = " ".join(browser.console())
    check(page.say("the policy says so"), "Content Security Policy" in said)


def main(directory):
    os.makedirs(os.path.join(directory, "browser"), exist_ok=True)
    with Browser(os.path.join(directory, "browser")) as browser:
        for name, count in (("few-hosts", 3), ("many-hosts", 500)):
            page = Page(browser, directory, name)
            loads(page)
            many_stores(page, count)
            fits(page)
        for name in ("ten", "many", "two", "fixtures", "none", "hostile"):
            page = Page(browser, directory, name)
            loads(page)
            equals_df(page)
            if name == "none":
                continue
            tables(page)
            fits(page)
            if name in ("ten", "many"):
                walks(page)
                words(page)
            if name == "ten":
                colours(page)
                usable(page)
            if name == "hostile":
                hostile(page)
    print("report: %s" % ("all is as it should be" if not bad else "%d are WRONG" % bad))
    sys.exit(bad != 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
