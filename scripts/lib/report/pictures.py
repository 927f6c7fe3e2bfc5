"""Takes pictures of a page of strata report: its parts, light and dark, wide and narrow; a walk.

usage: pictures.py PAGE DIR
"""
import os
import shutil
import subprocess
import sys
import tempfile

from browser import Browser

SECTIONS = {"": ("glance-heading", "unique-heading"), "-more": ("images-heading", "growth-heading"),
            "-waste": ("waste-heading", "waste-heading")}


def main(page, directory):
    with tempfile.TemporaryDirectory() as profile, Browser(profile) as browser:
        for scheme in ("light", "dark"):
            browser.prefer(scheme)
            for width in (1280, 700):
                browser.resize(width, 900)
                browser.open(page)
                name = "report-%s-%d" % (scheme, width)
                for suffix, (first, last) in SECTIONS.items():
                    top, end = place(browser, first), place(browser, last)
                    start = 0 if not suffix else top[1] - 12
                    take(browser, directory, name + suffix, width,
                         end[1] + end[3] + 12 - start, 0, start)
        browser.prefer("light")
        browser.resize(1280, 900)
        browser.open(page)
        # Into the largest image and its largest layer, by the keyboard.
        browser.run("document.getElementById('map').focus()")
        browser.press("Home", "Enter", "Home", "Enter", "Home")
        x, y, width, height = place(browser, "map")
        take(browser, directory, "report-walk", width, height, x, y)


def place(browser, inside):
    """The rectangle of the section of an element: x, y, width, height."""
    return browser.run(
        "const box = document.getElementById(arguments[0]).closest('section')"
        ".getBoundingClientRect();"
        "return [box.x + scrollX, box.y + scrollY, box.width, box.height]", inside)


def take(browser, directory, name, width, height, x=0, y=0):
    """One picture, compressed if pngquant is installed."""
    path = os.path.join(directory, name + ".png")
    browser.picture(path, (x, y, width, height))
    if shutil.which("pngquant"):
        subprocess.run(["pngquant", "--force", "--skip-if-larger", "--quality=80-98", "--speed=1",
                        "--strip", "--output", path, path], check=False)
    print("%s: %d bytes" % (path, os.path.getsize(path)))


if __name__ == "__main__":
    main(*sys.argv[1:])
