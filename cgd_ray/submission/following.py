"""Follow a job from here, whatever becomes of the connection.

The whole log is asked for again and again, and what is new in it is shown: after a lost connection
nothing is missing and nothing comes twice. Our jobs print a line every ten seconds; the longer a
log has grown, the more seldom it is asked for, so that following costs at most a quarter of a
megabyte a second.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TextIO

from cgd_ray.errors import UserError
from cgd_ray.progress import clock, same_stage
from cgd_ray.submission.client import JobsApi, Unreachable
from cgd_ray.submission.jobs import Job

PATIENCE_S = 900.0
_POLL_S, _LONGEST_PAUSE_S = 1.0, 15.0
_CHARACTERS_PER_S = 250_000
_FAILED = 500  # how Ray answers where a node does not give the log
_LAST_LOGS = 3  # such answers before the log of an ended job is given up


@dataclass(frozen=True, slots=True)
class Following:
    """What a follower knows."""

    shown: int = 0  # characters of the log
    log_size: int = 0  # characters of it when it was last seen
    lost_at: float | None = None  # seconds, when the head fell silent
    num_misses: int = 0  # failed requests in a row


def heard(
    state: Following, log: str, now: float, *, ended: bool
) -> tuple[Following, str, str | None]:
    """Take an answer in.

    Args:
        state: what was known.
        log: the whole log so far.
        now: in seconds.
        ended: whether the log is complete.

    Returns:
        What is known, the text to show (whole lines until the job has ended), and a note.
    """
    # A log that is shorter than before is on its way back, with a node or a disk: wait for it.
    end = len(log) if ended else log.rfind("\n") + 1
    text = log[state.shown : end]
    note = None
    if state.lost_at is not None:
        note = f"connected again after {clock(now - state.lost_at)}"
    return Following(state.shown + len(text), len(log)), text, note


def missed(
    state: Following, reason: str, now: float, patience_s: float = PATIENCE_S
) -> tuple[Following, str | None]:
    """Take a failed request in.

    Returns:
        What is known, and a note at the first of several.

    Raises:
        UserError: the head has been silent for too long.
    """
    lost_at = now if state.lost_at is None else state.lost_at
    if now - lost_at >= patience_s:
        raise UserError(
            f"no answer for {clock(now - lost_at)}: {reason}; the job may well go on, `cgd jobs "
            "logs` follows it"
        )
    note = None
    if not state.num_misses:
        note = f"lost the connection ({reason}); the job goes on, trying again"
    return replace(state, lost_at=lost_at, num_misses=state.num_misses + 1), note


def pause_s(state: Following) -> float:
    """Return how long to wait before the next request."""
    if state.num_misses:
        return min(_LONGEST_PAUSE_S, 2.0 ** min(state.num_misses - 1, 10))
    return max(_POLL_S, min(4 * _LONGEST_PAUSE_S, state.log_size / _CHARACTERS_PER_S))


def follow(
    api: JobsApi,
    job_id: str,
    show: Callable[[str], None],
    say: Callable[[str], None],
    *,
    shown: int = 0,
    sleep: Callable[[float], None] = time.sleep,
    clock_s: Callable[[], float] = time.monotonic,
) -> Job:
    """Show a job's log until the job has ended.

    Args:
        api: of the cluster.
        job_id: of the job.
        show: takes new text of the log.
        say: takes our own lines.
        shown: characters of the log that need not be shown.
        sleep: waits.
        clock_s: tells the time, in seconds.

    Raises:
        UserError: the job is not known, or the head is silent for too long.
    """
    state = Following(shown)
    while True:
        try:
            # The job first: the log of one that has ended is complete then.
            job = api.job(job_id)
            log = _log_of(api, job, say, state.num_misses)
        except Unreachable as error:
            state, note = missed(state, str(error), clock_s())
            if note:
                say(note)
        else:
            state, text, note = heard(state, log, clock_s(), ended=job.done)
            if note:
                say(note)
            if text:
                show(text)
            if job.done:
                return job
        sleep(pause_s(state))


def _log_of(api: JobsApi, job: Job, say: Callable[[str], None], num_misses: int) -> str:
    try:
        return api.log(job.id)
    except Unreachable as error:
        if error.status != _FAILED or not job.done or num_misses < _LAST_LOGS:
            raise
        say("the rest of its log is lost, perhaps with its node")
        return ""


class LogView:
    """Shows a log as the job's own terminal would: a stage's line is redrawn in place.

    Where it does not go to a terminal, the text passes as it is.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._open = ""  # the line that the next one may replace

    def show(self, text: str) -> None:
        """Show more of the log."""
        if not self._live:
            self._stream.write(text)
        else:
            for line in text.splitlines():
                self._line(line)
        self._stream.flush()

    def close(self) -> None:
        """End the line that is open, so that something else can be printed."""
        if self._open:
            self._stream.write("\n")
            self._stream.flush()
            self._open = ""

    def _line(self, line: str) -> None:
        width = shutil.get_terminal_size().columns
        replaces = same_stage(self._open, line) and len(self._open) < width
        if replaces:
            self._stream.write("\r\x1b[2K")
        elif self._open:
            self._stream.write("\n")
        self._stream.write(line)
        self._open = line or " "
