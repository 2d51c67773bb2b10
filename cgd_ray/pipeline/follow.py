"""A generation under way, as a person sees it: one live line, a clean stop, what it costs."""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from cgd_ray.errors import UserError
from cgd_ray.noise import say
from cgd_ray.pipeline.desk import DeskStatus
from cgd_ray.progress import StageLine
from cgd_ray.teacher.governor import HALTED, Stop

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
    plan: Plan,
    desk: DeskOfRun,
    line: StageLine,
    stage: str,
    skipped: int,
    teaching: Teaching,
    watch: Callable[[DeskStatus], None] | None = None,
) -> None:
    """Run a plan to its end, showing its counts as they grow.

    Ctrl-C lets no further call start, waits for those under way, whose answers are paid, and then
    stops; a second one does not wait.

    Args:
        plan: what to run.
        desk: where its workers report.
        line: what to redraw.
        stage: whose counts the line shows.
        skipped: rows that were done before.
        teaching: what to say about the teacher.
        watch: is shown the desk's counts, too.

    Raises:
        UserError: no call can succeed any more: a refused key, spent money, a teacher that is down.
        KeyboardInterrupt: once the calls under way have ended.
    """

    def show(status: DeskStatus) -> None:
        _show(status, line, stage, skipped, teaching)
        if watch:
            watch(status)

    watching = _Watch(desk, show)
    try:
        with watching:
            for _ in plan.iter_batches():
                pass
    except KeyboardInterrupt:
        if watching.stop is None:
            raise
    # Once calls have stopped, a plan may also come to its own end: every row that is left returns
    # untried at once.
    stop = watching.stop or desk.status().teacher.stop
    if stop is None:
        return
    if stop.reason == HALTED:
        raise KeyboardInterrupt
    raise UserError(
        f"stopped ({stop.reason}): {stop.detail}; what was made is kept, and the same command goes "
        "on"
    )


class _Watch:
    """A thread that shows the desk's counts, and ends the plan once calls have stopped.

    The plan runs in the main thread, because only there can it be interrupted and clean up. So the
    first Ctrl-C is taken down, and the thread sends another when nothing paid is under way.
    """

    def __init__(self, desk: DeskOfRun, show: Callable[[DeskStatus], None]) -> None:
        self.stop: Stop | None = None  # of the governor: why no call may start
        self._desk = desk
        self._show = show
        self._interrupted = False
        self._ending = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGINT, self._on_interrupt)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()  # an interrupt that is still on its way finds nothing to end
        self._thread.join()
        signal.signal(signal.SIGINT, self._before)
        self._show(self._desk.status())

    def _on_interrupt(self, *_: object) -> None:
        if self._done.is_set():
            return
        if self._interrupted or self._ending:
            raise KeyboardInterrupt
        self._interrupted = True

    def _run(self) -> None:
        told = False
        while not self._done.wait(_POLL_S):
            if self._interrupted and not told:
                told = True
                self._desk.halt("stopped by Ctrl-C")
                say("\nstopping after the calls under way; Ctrl-C again does not wait")
            status = self._desk.status()
            self._show(status)
            if status.teacher.stop is not None and not status.teacher.num_in_flight:
                self.stop = None if told else status.teacher.stop
                self._ending = True
                signal.pthread_kill(_main_thread(), signal.SIGINT)
                return


def _main_thread() -> int:
    ident = threading.main_thread().ident
    assert ident is not None  # it was started
    return ident


def _show(
    status: DeskStatus, line: StageLine, stage: str, skipped: int, teaching: Teaching
) -> None:
    # A row that failed as a draft is one that the teacher will not see.
    made, failed = status.made.get(stage, 0), sum(status.failed.values())
    drafted = status.made.get("drafts", 0)
    notes = [f"{drafted} drafted"] if stage != "drafts" and drafted else []
    notes.append(teaching.note(status, made + failed, time.monotonic()))
    line.update(made, failed, skipped, "  ".join(note for note in notes if note))


def _tokens(status: DeskStatus) -> int:
    return status.teacher.totals.num_input_tokens + status.teacher.totals.num_output_tokens
