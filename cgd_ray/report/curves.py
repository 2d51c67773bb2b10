"""The loss curve and the learning rate as inline SVG, from values alone."""

import math
from collections.abc import Iterator, Sequence

from cgd_ray.report.data import LossPoint
from cgd_ray.report.svg import image, line, text, ticks
from cgd_ray.report.words import scientific

_LOSS_HEIGHT = 210  # px
_RATE_HEIGHT = 34  # px
_MAX_DRAWN = 1200  # points of a line: more cannot be told apart on a screen
_MIN_SMOOTHED = 30  # steps below which a mean would hide more than it shows


def smoothing_window(num_points: int) -> int:
    """Return the steps that the thick loss line averages over (odd), or 0 for no such line."""
    return max(3, num_points // 20) | 1 if num_points >= _MIN_SMOOTHED else 0


def drawn_every(num_points: int) -> int:
    """Return k where the thin loss line draws every k-th step."""
    return max(1, math.ceil(num_points / _MAX_DRAWN))


def finite_points(losses: Sequence[LossPoint]) -> list[LossPoint]:
    """Return the points that can be drawn."""
    return [point for point in losses if math.isfinite(point.loss)]


def _moving_mean(values: Sequence[float], window: int) -> list[float]:
    half = window // 2
    return [
        math.fsum(part) / len(part)
        for part in (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    ]


class Plot:
    """Places values in a plot: x in percent of the width, y in pixels from the top."""

    def __init__(
        self, x_range: tuple[float, float], y_range: tuple[float, float], height: int
    ) -> None:
        self.x_range, self.y_range, self.height = x_range, y_range, height

    def x(self, value: float) -> float:
        """Return a value's place in percent."""
        low, high = self.x_range
        return 100 * (value - low) / (high - low) if high > low else 50.0

    def y(self, value: float) -> float:
        """Return a value's place in pixels."""
        low, high = self.y_range
        return self.height * (1 - (value - low) / (high - low)) if high > low else self.height / 2

    def curve(self, xs: Sequence[float], ys: Sequence[float], css: str) -> str:
        """Return a line through points."""
        every = drawn_every(len(xs))
        shown = sorted({*range(0, len(xs), every), len(xs) - 1})
        places = " ".join(f"{self.x(xs[i]):.2f},{self.y(ys[i]):.2f}" for i in shown)
        return (
            f'<svg width="100%" height="{self.height}" viewBox="0 0 100 {self.height}" '
            f'preserveAspectRatio="none"><polyline points="{places}" class="{css}"/></svg>'
        )


def loss_chart(losses: Sequence[LossPoint]) -> str:
    """Return loss per optimiser step, a moving mean over it, and labelled axes.

    Raises:
        ValueError: no point has a finite loss.
    """
    drawable = finite_points(losses)
    if not drawable:
        raise ValueError("no finite loss to draw: leave the chart out")
    steps, values = [float(p.step) for p in drawable], [p.loss for p in drawable]
    low, high = min(values), max(values)
    pad = 0.06 * (high - low) or max(abs(high), 0.1) * 0.1
    plot = Plot((steps[0], steps[-1]), (max(0.0, low - pad), high + pad), _LOSS_HEIGHT)
    body = list(plot_axes(plot))
    window = smoothing_window(len(values))
    css = "loss-each" if window else "loss"
    body.append(plot.curve(steps, values, css))
    ends = values
    if window:
        ends = _moving_mean(values, window)
        body.append(plot.curve(steps, ends, "loss"))
    end_x, end_y = f"{plot.x(steps[-1]):.2f}%", plot.y(ends[-1])
    body.append(f'<circle cx="{end_x}" cy="{end_y:.1f}" r="3.5" class="loss-end"/>')
    body.append(text(end_x, end_y + 4, f"{ends[-1]:.2f}", "value", "start", dx=9))
    title = (
        f"Loss per optimiser step: {values[0]:.3f} at step {steps[0]:,.0f}, "
        f"{values[-1]:.3f} at step {steps[-1]:,.0f}"
    )
    return image("plot", _LOSS_HEIGHT + 44, title, body)


def plot_axes(plot: Plot, x_name: str = "optimiser step") -> Iterator[str]:
    """Yield labelled grid lines and the x axis, whose values are whole numbers."""
    marks = ticks(*plot.y_range, 5)
    decimals = max(0, -math.floor(math.log10(marks[1] - marks[0]) + 1e-9)) if marks[1:] else 2
    for value in marks:
        y = round(plot.y(value), 1)
        yield line("0", y, "100%", y, "grid")
        yield text("0", y + 4, f"{value:.{decimals}f}", "tick", "end", dx=-9)
    bottom = plot.height
    yield line("0", bottom, "100%", bottom, "axis")
    for value in ticks(*plot.x_range, 5, whole=True):
        x = f"{plot.x(value):.2f}%"
        yield line(x, bottom, x, bottom + 5, "axis")
        yield text(x, bottom + 19, f"{value:,.0f}", "tick", "middle")
    yield text("50%", bottom + 38, x_name, "axis-name", "middle")


def learning_rate_chart(losses: Sequence[LossPoint]) -> str:
    """Return a strip under the loss chart, with the same x axis: the learning rate from 0 up.

    Raises:
        ValueError: there are no points.
    """
    drawable = finite_points(losses)
    if not drawable:
        raise ValueError("no learning rate to draw: leave the chart out")
    peak = max(point.learning_rate for point in drawable)
    plot = Plot(
        (drawable[0].step, drawable[-1].step), (0.0, peak if peak > 0 else 1.0), _RATE_HEIGHT
    )
    body = [
        line("0", _RATE_HEIGHT, "100%", _RATE_HEIGHT, "axis"),
        plot.curve([p.step for p in drawable], [p.learning_rate for p in drawable], "rate-line"),
        text("0", _RATE_HEIGHT + 4, "0", "tick", "end", dx=-9),
    ]
    return image("plot", _RATE_HEIGHT + 8, f"Learning rate, peak {scientific(peak)}", body)
