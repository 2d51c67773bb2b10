"""The few SVG pieces that all charts are made of.

Sizes along x are percentages of the chart's width and text has a size in pixels, so a chart
stretches to its column while its text stays readable. Colours and margins are in `page.css`:
the page's content security policy allows no style attributes. A chart for documents is a file of
its own, with its colours.
"""

import math
from collections.abc import Sequence
from html import escape

_FILE_STYLE = (
    "text{font:13px -apple-system,'Segoe UI',Roboto,'Liberation Sans',Arial,sans-serif;"
    "fill:#1c2024}.title{font-size:14px;font-weight:600}.grid{stroke:#e4e4de}"
)


def svg_file(title: str, width: int, height: int, style: str, body: str) -> str:
    """Return an SVG file on a light ground, to be written as UTF-8.

    Args:
        title: what screen readers say.
        width: in pixels.
        height: in pixels.
        style: CSS, besides that of text, `.title` and `.grid`.
        body: SVG, escaped where it holds others' text.
    """
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img"><title>{escape(title)}</title>'
        f'<style>{_FILE_STYLE}{style}</style><rect width="100%" height="100%" fill="#fdfdfb"/>'
        f"{body}</svg>\n"
    )


def ticks(low: float, high: float, count: int, whole: bool = False) -> list[float]:
    """Return about `count` round values that lie within [low, high], in order."""
    if not high > low:
        return [low]
    raw = (high - low) / max(count, 1)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = magnitude * min((1, 2, 5, 10), key=lambda factor: abs(factor * magnitude - raw))
    step = max(1.0, round(step)) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def image(css: str, height: int, title: str, body: Sequence[str]) -> str:
    """Return a whole chart of this height in pixels; the title is what screen readers say."""
    return (
        f'<svg class="chart {css}" role="img" width="100%" height="{height}">'
        f"<title>{escape(title)}</title>{''.join(body)}</svg>"
    )


def text(x: str, y: float, words: str, css: str, anchor: str = "start", dx: float = 0) -> str:
    """Return words at x (with its unit) and y pixels, moved by dx pixels."""
    return (
        f'<text x="{x}" y="{y:g}" dx="{dx:g}" class="{css}" text-anchor="{anchor}">'
        f"{escape(words)}</text>"
    )


def share(value: float, total: float) -> str:
    """Return value / total as a length in percent, kept within 0 and 100."""
    return f"{100 * min(max(value / total, 0), 1) if total else 0:.3f}%"


def line(x1: str, y1: float, x2: str, y2: float, css: str) -> str:
    """Return a straight line: x with its unit, y in pixels."""
    return f'<line x1="{x1}" y1="{y1:g}" x2="{x2}" y2="{y2:g}" class="{css}"/>'
