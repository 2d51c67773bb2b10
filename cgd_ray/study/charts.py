"""Dots with intervals, and loss curves of several arms, as inline SVG. Pure."""

from collections.abc import Sequence

from cgd_ray.report.curves import Plot, plot_axes
from cgd_ray.report.svg import image, line, share, text, ticks
from cgd_ray.study.results import ArmResult, Estimate

_ROW = 26  # px
_CURVES = 230  # px
_NAMES = 30.0  # percent of the width for the names on the left
NUM_COLOURS = 8  # classes arm-0 to arm-7 in study.css


def accuracy_height(num_rows: int) -> int:
    """Return the height of an accuracy chart in pixels."""
    return _ROW * num_rows + 26


def accuracy_chart(rows: Sequence[tuple[str, Estimate]], title: str, highest: float) -> str:
    """Return a dot with its 95 % interval for each arm, on one axis from 0.

    Args:
        rows: arm and accuracy, top to bottom.
        title: what screen readers say before the figures.
        highest: accuracy that the axis has room for, so that several charts can share a scale.
    """
    top = min(1.0, max(0.05, 1.05 * highest))
    bottom = _ROW * len(rows) + 4

    def x(value: float) -> str:
        return f"{_NAMES + (100 - _NAMES) * min(value, top) / top:.2f}%"

    body: list[str] = []
    for value in ticks(0, 100 * top, 5):
        place = x(value / 100)
        body.append(line(place, 0, place, bottom, "grid"))
        body.append(text(place, bottom + 16, f"{value:g} %", "tick", "middle"))
    for index, (name, e) in enumerate(rows):
        y = _ROW * index + _ROW / 2 + 2
        body.append(text("0", y + 4, name, "name"))
        body.append(line(x(e.low), y, x(e.high), y, "whisker"))
        colour = f"arm-{index % NUM_COLOURS}"
        body.append(f'<circle cx="{x(e.mean)}" cy="{y:g}" r="5" class="{colour}"/>')
    said = "; ".join(f"{name} {share(e.mean, 1)}" for name, e in rows)
    return image("forest", accuracy_height(len(rows)), f"{title}: {said}", body)


def loss_curves(arms: Sequence[ArmResult]) -> str:
    """Return the training loss of every arm over the tokens it was trained on.

    Args:
        arms: of one match, in the order of the page, so that colours agree; those without a curve
            are passed over.
    """
    drawn = [(index, arm) for index, arm in enumerate(arms) if len(arm.curve) > 1]
    if not drawn:
        return ""
    most = max(arm.curve[-1].tokens for _, arm in drawn)
    highest = max(point.loss for _, arm in drawn for point in arm.curve)
    plot = Plot((0.0, most), (0.0, 1.05 * highest), _CURVES)
    body = list(plot_axes(plot, "training tokens, context and target"))
    for index, arm in drawn:
        xs, ys = [p.tokens for p in arm.curve], [p.loss for p in arm.curve]
        body.append(plot.curve(xs, ys, f"curve arm-{index % NUM_COLOURS}"))
    ends = "; ".join(f"{arm.arm} ends at {arm.curve[-1].loss:.3f}" for _, arm in drawn)
    return image("plot", _CURVES + 44, f"Training loss, nats a target token: {ends}", body)


def swatch(index: int) -> str:
    """Return the colour of an arm, for legends."""
    dot = f'<circle cx="6" cy="6" r="5" class="arm-{index % NUM_COLOURS}"/>'
    return f'<svg class="swatch" width="12" height="12">{dot}</svg>'
