"""Bars and intervals as inline SVG, from values alone."""

from collections.abc import Iterator

from cgd_ray.report.data import AccuracyBar, Evaluation
from cgd_ray.report.svg import image, line, share, text, ticks
from cgd_ray.report.words import percent, points


def share_bar(label: str, value: float, total: float) -> str:
    """Return a thin bar: what share of the total a value is."""
    bar = f'<rect x="0" y="2" width="{share(value, total)}" height="8" class="quiet"/>'
    title = f"{label}: {percent(value / total if total else 0)} of the total"
    return image("bar", 12, title, [bar])


def funnel_bar(name: str, count: int, failed: int, rejected: int, total: int) -> str:
    """Return a step's bar: rows that go on, then rows failed and rejected, out of all rows."""
    body = ['<rect x="0" y="0" width="100%" height="14" class="track"/>']
    start = 0
    for css, rows in (("go-on", count), ("failed", failed), ("rejected", rejected)):
        if rows:
            x, width = share(start, total), share(rows, total)
            body.append(f'<rect x="{x}" y="0" width="{width}" height="14" class="{css}"/>')
        start += rows
    title = f"{name}: {count:,} of {total:,} rows go on, {failed:,} failed, {rejected:,} rejected"
    return image("bar", 14, title, body)


def _accuracy_row(bar: AccuracyBar, css: str, top: int) -> Iterator[str]:
    label = bar.label[:1].upper() + bar.label[1:]
    interval = f"{percent(bar.accuracy)}  ({100 * bar.low:.1f} to {100 * bar.high:.1f})"
    yield text("0", top + 12, label, "name")
    yield text("100%", top + 12, interval, "value", "end")
    yield f'<rect x="0" y="{top + 20}" width="100%" height="18" class="track"/>'
    width = share(bar.accuracy, 1)
    yield f'<rect x="0" y="{top + 20}" width="{width}" height="18" class="{css}"/>'
    yield from _interval(share(bar.low, 1), share(bar.high, 1), top + 29)


def _interval(low: str, high: str, y: float) -> Iterator[str]:
    yield line(low, y, high, y, "whisker")
    yield line(low, y - 5, low, y + 5, "whisker")
    yield line(high, y - 5, high, y + 5, "whisker")


def accuracy_chart(evaluation: Evaluation) -> str:
    """Return bars of both accuracies, from 0 to 100 %, with their 95 % intervals."""
    body: list[str] = []
    for value in range(0, 101, 25):
        anchor = "start" if value == 0 else "end" if value == 100 else "middle"
        body.append(line(f"{value}%", 20, f"{value}%", 102, "grid"))
        body.append(text(f"{value}%", 118, percent(value / 100).replace(".0", ""), "tick", anchor))
    body.extend(_accuracy_row(evaluation.base, "base", 0))
    body.extend(_accuracy_row(evaluation.student, "student", 58))
    title = "Accuracy with 95 % intervals: " + "; ".join(
        f"{bar.label} {percent(bar.accuracy)}, {percent(bar.low)} to {percent(bar.high)}"
        for bar in (evaluation.base, evaluation.student)
    )
    return image("accuracy", 124, title, body)


def difference_chart(evaluation: Evaluation) -> str:
    """Return the paired difference and its 95 % interval beside a line at zero."""
    found = evaluation.difference
    reach = min(1.0, max(0.05, 1.15 * max(abs(found.low), abs(found.high), abs(found.mean))))

    def place(value: float) -> str:
        return share(value + reach, 2 * reach)

    body = [
        text("0", 12, "Difference", "name"),
        text(
            "100%",
            12,
            f"{points(found.mean)} points  ({points(found.low)} to {points(found.high)})",
            "value",
            "end",
        ),
        line("0", 48, "100%", 48, "grid"),
    ]
    for value in ticks(-reach, reach, 4):
        body.append(line(place(value), 48, place(value), 52, "grid"))
        body.append(text(place(value), 66, points(value).replace(".0", ""), "tick", "middle"))
    body.append(line(place(0), 22, place(0), 48, "zero"))
    body.extend(_interval(place(found.low), place(found.high), 35))
    body.append(f'<circle cx="{place(found.mean)}" cy="35" r="5" class="student"/>')
    title = f"Paired difference {points(found.mean)} points, 95 % interval "
    return image("accuracy", 72, f"{title}{points(found.low)} to {points(found.high)}", body)
