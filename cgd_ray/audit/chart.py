"""The student's entropy over a refinement, with and without the critique: one SVG file, pure."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from cgd_ray.audit.gain import CONTEXTS, NUM_PARTS, Context
from cgd_ray.audit.summary import Figure
from cgd_ray.report.svg import svg_file, ticks

_WIDTH, _HEIGHT = 760, 380  # px
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 176, 44, 56  # margins; the names of the lines are at the right
_LABEL_HEIGHT = 16  # px between the names of two lines that end close together
_STYLE = ".soft{fill:#59626b;font-size:12px}polyline{fill:none;stroke-width:2}polygon{opacity:.15}"
_COLOURS: Mapping[Context, str] = {"none": "#59626b", "own": "#1f5fa8", "another's": "#b03a1c"}
_NAMES: Mapping[Context, str] = {
    "none": "no critique",
    "own": "own critique",
    "another's": "another's critique",
}


def entropy_chart(title: str, parts: Mapping[Context, Sequence[Figure]]) -> str:
    """Return an SVG file: entropy in nats over the refinement, a line with its band a context.

    Args:
        title: what is shown.
        parts: as `gain.entropy_by_part` returns it, with a value in some part.
    """
    bounds = [f.high if f.high is not None else f.value for fs in parts.values() for f in fs]
    top = max((bound for bound in bounds if bound is not None), default=0.0) * 1.05 or 1.0
    body = [*_frame(title, top)]
    ends: list[tuple[float, Context]] = []
    for context in CONTEXTS:
        drawn = [(i, f) for i, f in enumerate(parts[context]) if f.value is not None]
        body += _line(context, drawn, top)
        if drawn:
            ends.append((_y(drawn[-1][1].value or 0.0, top), context))
    body += _labels(sorted(ends))
    return svg_file(title, _WIDTH, _HEIGHT, _STYLE, "".join(body))


def _x(part: float) -> float:
    return _LEFT + part / NUM_PARTS * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float, top: float) -> float:
    return _TOP + (1 - value / top) * (_HEIGHT - _TOP - _BOTTOM)


def _frame(title: str, top: float) -> Iterator[str]:
    yield f'<text x="{_LEFT}" y="24" class="title">{escape(title)}</text>'
    marks = ticks(0, top, 5)
    decimals = 2 if marks[-1] < 1 else 1
    for value in marks:
        y = _y(value, top)
        yield f'<line x1="{_LEFT}" x2="{_x(NUM_PARTS)}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
        place = f'x="{_LEFT - 8}" y="{y + 4:.1f}"'
        yield f'<text {place} class="soft" text-anchor="end">{value:.{decimals}f}</text>'
    for part in range(0, NUM_PARTS + 1, 2):
        place = f'x="{_x(part)}" y="{_HEIGHT - _BOTTOM + 20}"'
        yield f'<text {place} class="soft" text-anchor="middle">{100 * part // NUM_PARTS} %</text>'
    below = f'x="{_x(NUM_PARTS / 2)}" y="{_HEIGHT - 14}"'
    words = "place in the refinement; entropy in nats a token, bands: 95 % intervals"
    yield f'<text {below} class="soft" text-anchor="middle">{words}</text>'


def _line(context: Context, drawn: Sequence[tuple[int, Figure]], top: float) -> Iterator[str]:
    colour = _COLOURS[context]
    ranged = [(i, f.low, f.high) for i, f in drawn if f.low is not None and f.high is not None]
    band = [(i, high) for i, _, high in ranged] + [(i, low) for i, low, _ in reversed(ranged)]
    yield f'<polygon points="{_points(band, top)}" fill="{colour}"/>'
    middle = [(i, f.value or 0.0) for i, f in drawn]
    yield f'<polyline points="{_points(middle, top)}" stroke="{colour}"/>'


def _points(places: Sequence[tuple[int, float]], top: float) -> str:
    return " ".join(f"{_x(part + 0.5):.1f},{_y(value, top):.1f}" for part, value in places)


def _labels(ends: Sequence[tuple[float, Context]]) -> Iterator[str]:
    """Yield each line's name beside its end, none on top of another or below the axis."""
    last = _HEIGHT - _BOTTOM + _LABEL_HEIGHT
    for y, context in reversed(ends):
        last = min(y, last - _LABEL_HEIGHT)
        place = f'x="{_x(NUM_PARTS - 0.5) + 10:.1f}" y="{last + 4:.1f}"'
        yield f'<text {place} style="fill:{_COLOURS[context]}">{_NAMES[context]}</text>'
