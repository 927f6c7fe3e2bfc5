"""Takes pictures of a page of strata report: light and dark, wide and narrow, and of a walk.

usage: pictures.py PAGE DIR
"""
import os
import shutil
import subprocess
import sys
import tempfile

from browser import Browser

SIZES = {"": 1280, "-narrow": 700}


def main(page, directory):
    with tempfile.TemporaryDirectory() as profile, Browser(profile) as browser:
        for scheme in ("light", "dark"):
            browser.prefer(scheme)
            for suffix, width in SIZES.items():
                browser.resize(width, 900)
                browser.open(page)
                height = browser.run("return document.documentElement.scrollHeight")
                take(browser, directory, "report-%s%s" % (scheme, suffix), width, height)
        browser.prefer("light")
        browser.resize(1280, 900)
        browser.open(page)
        # Into the largest image and its largest layer, by the keyboard.
        browser.run("document.getElementById('map').focus()")
        browser.press("Home", "Enter", "Home", "Enter", "Home")
        x, y, width, height = browser.run(
            "const card = document.getElementById('map').closest('section');"
            "const box = card.getBoundingClientRect();"
            "return [box.x + scrollX, box.y + scrollY, box.width, box.height]")
        take(browser, directory, "report-walk", width, height, x, y)


def take(browser, directory, name, width, height, x=0, y=0):
    """One picture, in few bytes where pngquant is there."""
    path = os.path.join(directory, name + ".png")
    browser.picture(path, (x, y, width, height))
    if shutil.which("pngquant"):
        subprocess.run(["pngquant", "--force", "--skip-if-larger", "--quality=80-98", "--speed=1",
                        "--strip", "--output", path, path], check=False)
    print("%s: %d bytes" % (path, os.path.getsize(path)))


if __name__ == "__main__":
    main(*sys.argv[1:])
