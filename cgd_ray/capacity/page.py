"""The capacity page for a terminal of 100 columns: pure."""

import math
import textwrap
from collections.abc import Iterable, Sequence

from cgd_ray.capacity.figures import Figure, Figures
from cgd_ray.capacity.needs import SERVER, Needs, PoolNeed
from cgd_ray.capacity.nodes import PRICED_ON

_WIDTH = 100
_KINDS = ("measured", "given", "assumed")
_HEADINGS = ("", "nodes", "hours", "node-hours", "on demand", "as set", "nodes for a day")


def capacity_page(run: str, needs: Sequence[Needs], figures: Figures, notes: Sequence[str]) -> str:
    """Return what so many prompts need, and what that was told from.

    Args:
        run: its name.
        needs: for each number of prompts.
        figures: that the arithmetic was fed.
        notes: what a reader must know.
    """
    lines = [f"{run} on EC2 in us-east-1 (prices from memory, {PRICED_ON})"]
    for need in needs:
        lines += ["", *_needs(need)]
    lines += ["", "told from", *_figures(figures.values()), ""]
    for note in notes:
        lines += textwrap.wrap(note, _WIDTH)
    return "\n".join(lines)


def _needs(n: Needs) -> Iterable[str]:
    yield (
        f"{n.num_prompts:,} prompts: {_many(n.num_drafts)} drafts, {_many(n.num_taught)} for the "
        f"teacher, {_many(n.trained_tokens)} tokens trained on"
    )
    yield from _table([_HEADINGS, *map(_cells, n.pools), _total(n)])
    yield (
        f"  drafts alone: {_hours(n.drafting_h)} h; the teacher alone: {_hours(n.teaching_h)} h; "
        f"Ray and our own code: {_hours(n.platform_core_h)} core-hours"
    )
    nodes = n.pools[1].num_nodes
    enough = math.ceil(nodes * n.drafting_h / n.generation_h)
    streams = n.generation_h < n.drafting_h + n.teaching_h
    if streams and enough < nodes:
        yield (
            f"  {enough} of {nodes} nodes for drafts would keep up with the teacher "
            "(sampling.max_replicas)"
        )
    if n.teacher_usd is not None:
        yield f"  the teacher's tokens cost {_dollars(n.teacher_usd)} on top, at list price"
    elif any(need.pool.name == SERVER for need in n.pools):
        yield "  the teacher has no price: its model is taken to be served on nodes of your own"
    else:
        yield "  the teacher's tokens: price not known, set teacher.usd_per_million_*_tokens"


def _cells(need: PoolNeed) -> tuple[str, ...]:
    spot = need.pool.spot_usd_an_hour is not None
    return (
        need.pool.name,
        f"{need.num_nodes:,} x {need.pool.instance}",
        _hours(need.hours),
        _hours(need.node_hours),
        _dollars(need.usd),
        f"{_dollars(need.usd_as_set)}{' spot' if spot else '     '}",
        "" if need.nodes_for_a_day is None else f"{need.nodes_for_a_day:,}",
    )


def _total(n: Needs) -> tuple[str, ...]:
    nodes_h = sum(need.node_hours for need in n.pools)
    usd, as_set = _dollars(n.nodes_usd), f"{_dollars(n.nodes_usd_as_set)}     "
    return ("in all", "", _hours(n.hours), _hours(nodes_h), usd, as_set, "")


def _table(rows: Sequence[tuple[str, ...]]) -> Iterable[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  " + "  ".join(cells).rstrip()


def _figures(figures: Iterable[Figure]) -> Iterable[str]:
    shown = sorted(figures, key=lambda figure: _KINDS.index(figure.kind))
    width = max(len(figure.name) for figure in shown)
    for f in shown:
        value = f"{f.value:,.4g}" if f.value < 1000 else f"{f.value:,.0f}"
        start = f"  {f.kind:<9} {f.name:<{width}}  "
        text = f"{value} {f.unit}: {f.source}"
        yield from textwrap.wrap(
            text,
            _WIDTH,
            initial_indent=start,
            subsequent_indent=" " * len(start),
            break_on_hyphens=False,
            break_long_words=False,
        )


def _hours(hours: float) -> str:
    if hours < 1:
        return f"{hours:.2g}"
    return f"{hours:,.1f}" if hours < 100 else f"{hours:,.0f}"


def _dollars(usd: float) -> str:
    return f"${usd:,.2f}" if usd < 100 else f"${usd:,.0f}"


def _many(number: float) -> str:
    for size, word in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.3g} {word}"
    return f"{number:,.0f}"
