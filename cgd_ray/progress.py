"""One live line a stage: done, failed, skipped, rate, time left.

On a terminal the line is redrawn in place; elsewhere (a job log, CI) it is printed at most every
ten seconds, and once more when the stage ends.
"""

import re
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from cgd_ray.noise import terminal

_REDRAW_S = 0.2
_PRINT_S = 10.0
_NAME_WIDTH = 12
# As `StageLine` writes it: the name, then done or done/total, then the unit.
_LINE = re.compile(rf"(?P<name>\S.{{{_NAME_WIDTH - 1},}}?) \d+(/\d+)? [a-z]+")


@dataclass(frozen=True, slots=True)
class LineCounts:
    """What a line shows, for those who count rather than read."""

    stage: str
    total: int | None
    done: int
    lost: int
    lost_as: str
    skipped: int


Watch = Callable[[LineCounts], None]


class StageLine:
    """The line of one running stage.

    Args:
        name: of the stage.
        total: units of work, those already done included; None if not known.
        unit: what is counted, such as "rows".
        stream: where to write.
        lost_as: what becomes of units that are not done: "failed" or "rejected".
        watch: is told every change of the counts.
    """

    def __init__(
        self,
        name: str,
        total: int | None,
        unit: str,
        stream: TextIO,
        lost_as: str = "failed",
        watch: Watch | None = None,
    ) -> None:
        self._name = name
        self._total = total
        self._unit = unit
        self._stream = stream
        self._lost_as = lost_as
        self._watch = watch
        self._live = stream.isatty()
        self._start = time.monotonic()
        self._last = -_PRINT_S if self._live else self._start
        self._counts = (0, 0, 0)
        self._note = ""

    def update(self, done: int, failed: int = 0, skipped: int = 0, note: str = "") -> None:
        """Show the counts so far; `skipped` were made by an earlier run."""
        self._counts = (done, failed, skipped)
        self._note = note
        if self._watch:
            lost = failed, self._lost_as
            self._watch(LineCounts(self._name, self._total, done, *lost, skipped))
        now = time.monotonic()
        if now - self._last >= (_REDRAW_S if self._live else _PRINT_S):
            self._last = now
            self._write(self._text(now - self._start), final=False)

    def finish(self, note: str = "") -> None:
        """Show the last state and end the line."""
        self._note = note or self._note
        self._write(self._text(time.monotonic() - self._start, final=True), final=True)

    def _text(self, elapsed_s: float, *, final: bool = False) -> str:
        done, failed, skipped = self._counts
        total = f"/{self._total}" if self._total is not None else ""
        parts = [f"{done + failed + skipped}{total} {self._unit}"]
        if failed:
            parts.append(f"{failed} {self._lost_as}")
        if skipped:
            parts.append(f"{skipped} done before")
        worked = done + failed
        if worked and elapsed_s > 0:
            parts.append(f"{worked / elapsed_s:.1f}/s")
        left = (self._total or 0) - done - failed - skipped
        if worked and left > 0 and not final:
            parts.append(f"{clock(left * elapsed_s / worked)} left")
        parts.append(clock(elapsed_s))
        if self._note:
            parts.append(self._note)
        return f"{self._name:<{_NAME_WIDTH}} " + "  ".join(parts)

    def _write(self, text: str, *, final: bool) -> None:
        if self._live:
            self._stream.write("\r\x1b[2K" + text + ("\n" if final else ""))
        else:
            self._stream.write(text + "\n")
        self._stream.flush()


class Progress:
    """Prints the lines of a run.

    Args:
        stream: where to; None: standard error.
        watch: is told the counts of every line.
    """

    def __init__(self, stream: TextIO | None = None, watch: Watch | None = None) -> None:
        self._stream = stream or terminal()
        self._watch = watch

    @contextmanager
    def stage(
        self, name: str, total: int | None, unit: str, lost_as: str = "failed"
    ) -> Generator[StageLine]:
        """Show a stage's line until the block ends."""
        line = StageLine(name, total, unit, self._stream, lost_as, self._watch)
        line.update(0)
        ended = "stopped"
        try:
            yield line
            ended = ""
        finally:
            line.finish(ended)

    def skipped(self, name: str, what: str) -> None:
        """Say that a stage's artefact exists."""
        self.say(f"{name:<{_NAME_WIDTH}} skipped: {what}")

    def say(self, text: str) -> None:
        """Print one line."""
        self._stream.write(text + "\n")
        self._stream.flush()


def clock(seconds: float) -> str:
    """Return a duration as people read it: 42s, 3m05s, 2h10m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def same_stage(before: str, after: str) -> bool:
    """Return whether the second of two printed lines is a later state of the first one's stage."""
    first, second = _LINE.match(before), _LINE.match(after)
    return first is not None and second is not None and first["name"] == second["name"]
