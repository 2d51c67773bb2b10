"""What a run has come to, as records and as a page for a terminal: pure."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from cgd_ray.progress import clock

State = Literal["done", "at work", "begun", "waiting"]


@dataclass(frozen=True, slots=True)
class StageStatus:
    """One stage. None: there is no such figure."""

    name: str
    state: State
    verb: str  # the command that makes it
    folder: str  # key prefix in the store
    unit: str = "rows"
    done: int | None = None
    expected: int | None = None
    failed: int | None = None
    rejected: int | None = None
    tokens: int | None = None  # generated, asked or trained on
    usd: float | None = None
    seconds: float | None = None  # of the attempt that finished it
    changed_s: float | None = None  # seconds ago


@dataclass(frozen=True, slots=True)
class TrainingStatus:
    """Where training is."""

    step: int
    steps: int | None  # in the end
    loss: float
    tokens_per_second: float  # of the last steps, of all if training is done
    target_tokens_per_second: float
    mfu: float | None
    saved_step: int | None  # of the newest training state; None: none is kept


@dataclass(frozen=True, slots=True)
class OwnerStatus:
    """Who works on the run, or did so last."""

    state: Literal["alive", "silent", "dead", "gone"]  # gone: it ended in order
    host: str
    process: int
    since: str  # UTC
    silent_s: float
    lease_s: float


@dataclass(frozen=True, slots=True)
class RunStatus:
    """All that `cgd status` shows."""

    run: str
    root: str
    round: int
    rounds: int
    owner: OwnerStatus | None  # None: nobody has ever worked on it
    stages: tuple[StageStatus, ...]
    training: TrainingStatus | None
    scores: str | None  # in words
    report: str | None  # path of the page on this machine
    next_verb: str | None  # None: wait for the owner

    @property
    def changed_s(self) -> float | None:
        """Seconds since anything was made."""
        return min((s.changed_s for s in self.stages if s.changed_s is not None), default=None)


def status_page(status: RunStatus, command: Sequence[str]) -> str:
    """Return a status as lines for a terminal of 100 columns.

    Args:
        status: of the run.
        command: the run file and overrides, as the user gave them.
    """
    named = f"{status.run}, round {status.round} of {status.rounds}"
    lines = [f"{named if status.rounds > 1 else status.run}  {status.root}"]
    lines += [f"owner       {_owner(status.owner)}"]
    if status.changed_s is not None:
        lines.append(f"last change {_ago(status.changed_s)}")
    lines += ["", *_table([_HEADINGS, *map(_cells, status.stages)]), ""]
    if status.training:
        lines.append(f"training    {_training(status.training)}")
    if status.scores:
        first, *more = status.scores.split("\n")
        lines += [f"scores      {first}", *(f"            {line}" for line in more)]
    failed = sum(s.failed or 0 for s in status.stages)
    if failed:
        lines.append(f"failures    {failed:,}: {shlex.join(['cgd', 'failures', *command])}")
    if status.report:
        lines.append(f"report      {status.report}")
    lines.append(f"next        {_next(status, shlex.join(command))}")
    return "\n".join(lines)


_HEADINGS = ("stage", "state", "rows", "failed", "rejected", "tokens", "dollars", "took", "changed")


def _cells(s: StageStatus) -> tuple[str, ...]:
    return (
        s.name,
        s.state,
        _rows(s),
        _number(s.failed),
        _number(s.rejected),
        _number(s.tokens),
        "" if s.usd is None else f"{s.usd:,.2f}",
        "" if s.seconds is None else clock(s.seconds),
        "" if s.changed_s is None else _ago(s.changed_s),
    )


def _rows(s: StageStatus) -> str:
    unit = "" if s.unit == "rows" else f" {s.unit}"
    if s.done is None:
        return ""
    if s.expected is None:
        return f"{s.done:,}{unit}"
    return f"{s.done:,} of {s.expected:,}{unit}"


def _table(rows: Sequence[tuple[str, ...]]) -> Iterable[str]:
    """Yield aligned lines: words to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _owner(owner: OwnerStatus | None) -> str:
    if owner is None:
        return "none yet"
    who = f"process {owner.process} on {owner.host}"
    silent, since = clock(owner.silent_s), owner.since.replace("T", " ").partition("+")[0]
    return {
        "alive": f"{who}, at work since {since} UTC, last sign of life {silent} ago",
        "silent": f"{who}, silent for {silent}: anyone may take over (run.lease_s="
        f"{owner.lease_s:g})",
        "dead": f"none: {who} died, last sign of life {silent} ago",
        "gone": f"none: {who} ended {silent} ago",
    }[owner.state]


def _training(t: TrainingStatus) -> str:
    of = f" of {t.steps:,}" if t.steps is not None else ""
    parts = [
        f"step {t.step:,}{of}",
        f"loss {t.loss:.3f}",
        f"{t.tokens_per_second:,.0f} tokens/s, {t.target_tokens_per_second:,.0f} targets/s",
    ]
    if t.mfu is not None:
        parts.append(f"MFU {t.mfu:.1%}")
    if t.step != t.steps:
        saved = "no state saved yet" if t.saved_step is None else f"saved at step {t.saved_step:,}"
        parts.append(saved)
    return "  ".join(parts)


def _next(status: RunStatus, command: str) -> str:
    if status.next_verb is None:
        return "it is at work: ask again; Ctrl-C stops it in order, and the same command goes on"
    alone = next((s for s in status.stages if s.state != "done"), None)
    also = f"\n            or this stage alone: cgd {alone.verb}" if alone else ""
    return f"cgd {status.next_verb} {command}{also}"


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _ago(seconds: float) -> str:
    return f"{clock(max(0.0, seconds))} ago"
