"""A generation under way, as a person sees it: one live line, a clean stop, what it costs."""

import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning
from dataclasses import dataclass, field
from typing import Protocol

from cgd_ray.errors import UserError
from cgd_ray.noise import say
from cgd_ray.pipeline.desk import DeskStatus
from cgd_ray.progress import StageLine

_POLL_S = 0.5
_RATE_WINDOW_S = 60.0


class Plan(Protocol):
    """A data set whose rows are nobody's business: what counts is in the store."""

    def iter_batches(self) -> Iterable[object]:
        """Run the plan to its end."""
        ...


class DeskOfRun(Protocol):
    """The part of the desk's link that is used here."""

    def status(self) -> DeskStatus:
        """Return what is known now."""
        ...

    def halt(self, reason: str) -> None:
        """Let no further call start."""
        ...


@dataclass(slots=True)
class Teaching:
    """What a line says about the teacher: pure."""

    total: int  # rows of the stage
    skipped: int  # of these, done before
    max_usd: float | None
    priced: bool
    _seen: deque[tuple[float, int, int]] = field(default_factory=deque)

    def note(self, status: DeskStatus, rows_done: int, now_s: float) -> str:
        """Return calls and tokens a minute, calls under way, and dollars spent and to come."""
        usage = status.teacher
        totals = usage.totals
        if not totals.num_calls and not usage.num_in_flight:
            return ""
        self._seen.append((now_s, totals.num_calls, _tokens(status)))
        while now_s - self._seen[0][0] > _RATE_WINDOW_S:
            self._seen.popleft()
        since_s, calls, tokens = self._seen[0]
        minutes = max(now_s - since_s, _POLL_S) / 60
        parts = [
            f"{(totals.num_calls - calls) / minutes:,.0f} calls/min",
            f"{(_tokens(status) - tokens) / minutes:,.0f} tokens/min",
            f"{usage.num_in_flight} in flight",
        ]
        if usage.pause_s > 1:
            parts.append(f"paused for {usage.pause_s:.0f}s as the teacher asked")
        if self.priced:
            parts.append(self._money(usage.spent_usd, rows_done))
        return "  ".join(parts)

    def _money(self, spent_usd: float, rows_done: int) -> str:
        text = f"${spent_usd:.2f}"
        if self.max_usd is not None:
            text += f" of ${self.max_usd:g}"
        done = rows_done + self.skipped
        if done and spent_usd:
            text += f", ${spent_usd * self.total / done:.2f} expected"
        return text


def follow(
    plan: Plan, desk: DeskOfRun, line: StageLine, stage: str, skipped: int, teaching: Teaching
) -> None:
    """Run a plan to its end, showing its counts as they grow.

    Ctrl-C lets no further call start, waits for those under way, whose answers are paid, and then
    stops.

    Args:
        plan: what to run.
        desk: where its workers report.
        line: what to redraw.
        stage: whose counts the line shows.
        skipped: rows that were done before.
        teaching: what to say about the teacher.

    Raises:
        UserError: no call can succeed any more: a refused key, spent money, a teacher that is down.
        KeyboardInterrupt: once the calls under way have ended.
    """
    with_plan = ThreadPoolExecutor(1)
    running = with_plan.submit(_drain, plan)
    try:
        while not _ended(running):
            status = desk.status()
            _show(status, line, stage, skipped, teaching)
            stop = status.teacher.stop
            if stop is not None and not status.teacher.num_in_flight:
                raise UserError(
                    f"stopped ({stop.reason}): {stop.detail}; what was made is kept, and the same "
                    "command goes on"
                )
        _show(desk.status(), line, stage, skipped, teaching)
    except KeyboardInterrupt:
        _wait_for_calls(desk)
        raise
    finally:
        with_plan.shutdown(wait=False)


def _drain(plan: Plan) -> None:
    for _ in plan.iter_batches():
        pass


def _ended(running: Future[None]) -> bool:
    """Wait a moment for the end of a plan. Raises what ended it."""
    try:
        running.result(timeout=_POLL_S)
    except StillRunning:
        return False
    return True


def _show(
    status: DeskStatus, line: StageLine, stage: str, skipped: int, teaching: Teaching
) -> None:
    made, failed = status.made.get(stage, 0), status.failed.get(stage, 0)
    notes = []
    drafted = status.made.get("drafts", 0)
    if stage != "drafts" and drafted:
        notes.append(f"{drafted} drafted")
    about_teacher = teaching.note(status, made + failed, time.monotonic())
    if about_teacher:
        notes.append(about_teacher)
    line.update(made, failed, skipped, "  ".join(notes))


def _wait_for_calls(desk: DeskOfRun) -> None:
    desk.halt("stopped by Ctrl-C")
    under_way = desk.status().teacher.num_in_flight
    if under_way:
        say(f"\nstopping after the {under_way} calls under way; Ctrl-C again does not wait")
    while desk.status().teacher.num_in_flight:
        time.sleep(_POLL_S)


def _tokens(status: DeskStatus) -> int:
    return status.teacher.totals.num_input_tokens + status.teacher.totals.num_output_tokens
