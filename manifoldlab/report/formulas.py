"""Text with $formulas$ to HTML, each formula an inline SVG of its outlines: crisp at every size,
without a font or a script to load; its source is kept as the label."""

import re
from collections import deque
from functools import cache
from itertools import islice

import numpy as np
from markupsafe import Markup, escape
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.textpath import TextPath, text_to_path

EM = 100.0  # units an em; outlines are rounded to a hundredth of it
FONT = FontProperties(size=EM, math_fontfamily="stix")
CODES = Path.MOVETO, Path.LINETO, Path.CURVE3, Path.CURVE4
LETTERS = {int(code): letter for code, letter in zip(CODES, "MLQC", strict=True)}


def typeset(text: str) -> Markup:
    """HTML of a text whose parts between dollars are formulas; punctuation stays at a formula."""
    found, end = Markup(), 0
    for match in re.finditer(r"\$(.+?)\$([.,;:)]*)", text):
        whole = Markup('<span class="whole">{}{}</span>').format(formula(match[1]), match[2])
        found += escape(text[end : match.start()]) + whole
        end = match.end()
    return found + escape(text[end:])


@cache
def formula(source: str) -> Markup:
    """An SVG that stands on the baseline; what cannot be parsed is shown as it was written."""
    try:
        width, height, depth = text_to_path.get_text_width_height_descent(f"${source}$", FONT, True)
        outlines = TextPath((0, 0), f"${source}$", prop=FONT, usetex=False)
    except ValueError:
        return Markup("<code>{}</code>").format(source)
    shape = f"width:{width / EM:.2f}em;vertical-align:{-depth / EM:.2f}em"
    return Markup(
        '<svg class="formula" role="img" aria-label="{0}" style="{1}" viewBox="{2}">'
        '<title>{0}</title><path d="{3}"/></svg>'
    ).format(source, shape, f"0 {depth - height:.0f} {width:.0f} {height:.0f}", outline(outlines))


def outline(path: Path) -> str:
    """The `d` of an SVG path, downwards being positive there; a code stands once a point."""
    points = iter(np.rint(np.asarray(path.vertices) * (1, -1)).astype(int).tolist())
    codes = iter([] if path.codes is None else np.asarray(path.codes).tolist())
    found = []
    for code in codes:
        letter = LETTERS.get(code, "Z")
        count = {"Q": 2, "C": 3}.get(letter, 1)
        place = " ".join(f"{x} {y}" for x, y in islice(points, count))
        found.append(letter + place if code in LETTERS else letter)
        deque(islice(codes, count - 1), maxlen=0)
    return "".join(found)
