"""Draws a captured terminal screen as an SVG picture.

usage: tmux capture-pane -p -e | python3 scripts/lib/termsvg.py > picture.svg

Reads text with SGR sequences (bold, dim, underlined, reversed, the 16 colours) from standard
input. Each word and each piece of a border is one text element at its column, so that the picture
is aligned in any monospaced font.
"""

import re
import sys
from html import escape

CELL, LINE, PAD = 8, 17, 10
GROUND, TEXT = "#16181d", "#d6dae0"
COLOURS = ["#5c6370", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#d6dae0"]


def runs(line, look):
    """Yields (column, text, look) and keeps the look for the next line."""
    column = 0
    for part in re.split(r"(\x1b\[[0-9;]*m|\x0e|\x0f)", line):
        sgr = re.fullmatch(r"\x1b\[([0-9;]*)m", part)
        if sgr is None:
            if part and part not in "\x0e\x0f":
                yield column, part, dict(look)
                column += len(part)
            continue
        codes = [int(code or 0) for code in sgr[1].split(";")]
        if codes[:2] == [38, 5] and len(codes) == 3:
            look["colour"] = COLOURS[codes[2] % 8]
            continue
        for code in codes:
            if code == 0:
                look.clear()
            elif code in (1, 2, 4, 7):
                look[code] = True
            elif 30 <= code <= 37 or 90 <= code <= 97:
                look["colour"] = COLOURS[code % 10]
            elif code == 39:
                look.pop("colour", None)
            elif code == 22:
                look.pop(1, None)
                look.pop(2, None)
            elif code in (24, 27):
                look.pop(code - 20, None)


def main():
    lines = sys.stdin.read().rstrip("\n").split("\n")
    plain = [re.sub(r"\x1b\[[0-9;]*m|[\x0e\x0f]", "", line) for line in lines]
    width = max(map(len, plain)) * CELL + 2 * PAD
    height = len(lines) * LINE + 2 * PAD
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
          f'width="{width}" height="{height}" font-size="13" xml:space="preserve" '
          'font-family="ui-monospace, Menlo, Consolas, \'DejaVu Sans Mono\', monospace">')
    print(f'<rect width="{width}" height="{height}" rx="6" fill="{GROUND}"/>')
    look = {}
    for row, line in enumerate(lines):
        top = PAD + row * LINE
        for column, text, seen in runs(line, look):
            left, length = PAD + column * CELL, len(text) * CELL
            colour, ground = seen.get("colour", TEXT), None
            if 7 in seen:
                colour, ground = GROUND, colour
            if ground:
                print(f'<rect x="{left}" y="{top}" width="{length}" height="{LINE}" '
                      f'fill="{ground}"/>')
            style = ' font-weight="bold"' if 1 in seen else ""
            style += ' opacity="0.65"' if 2 in seen else ""
            style += ' text-decoration="underline"' if 4 in seen else ""
            # A border is drawn piece by piece, text word by word.
            for word in re.finditer(r"[\u2500-\u257f]|[^\s\u2500-\u257f]+", text):
                left = PAD + (column + word.start()) * CELL
                print(f'<text x="{left}" y="{top + 13}" fill="{colour}"{style}>'
                      f"{escape(word[0])}</text>")
    print("</svg>")


main()
