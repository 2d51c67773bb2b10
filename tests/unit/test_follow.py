"""The line of a generation under way, and how a plan is brought to a stop."""

import io
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from cgd_ray.errors import UserError
from cgd_ray.pipeline.desk import DeskStatus
from cgd_ray.pipeline.follow import Teaching, follow
from cgd_ray.progress import StageLine
from cgd_ray.teacher.governor import HALTED, Stop, Totals, Usage

IDLE = Usage(Totals(), 0, 64, 0.0, 0.0, 0.0, None)


def status(calls: int = 0, tokens: int = 0, **usage: object) -> DeskStatus:
    totals = Totals(num_calls=calls, num_input_tokens=tokens)
    return DeskStatus({}, {}, replace(IDLE, totals=totals, **usage))


def test_a_note_tells_the_rates_of_the_last_minute_and_the_money() -> None:
    teaching = Teaching(total=100, skipped=10, max_usd=5.0, priced=True)
    assert teaching.note(status(), 0, 0.0) == ""
    teaching.note(status(1, 100, num_in_flight=8, spent_usd=0.01), 0, 0.0)
    note = teaching.note(status(61, 6100, num_in_flight=8, spent_usd=0.5), 15, 30.0)
    assert note == "120 calls/min  12,000 tokens/min  8 in flight  $0.50 of $5, $2.00 expected"
    # The first half minute is forgotten: 60 calls in the last minute.
    later = teaching.note(status(121, 6100, num_in_flight=8, spent_usd=0.5), 15, 90.0)
    assert later.startswith("60 calls/min  0 tokens/min")


def test_a_note_of_an_unknown_price_says_nothing_about_money() -> None:
    teaching = Teaching(total=100, skipped=0, max_usd=None, priced=False)
    assert "$" not in teaching.note(status(5, 10, spent_usd=1.0, pause_s=600.0), 5, 1.0)
    assert "paused for 600s" in teaching.note(status(5, 10, pause_s=600.0), 5, 2.0)


@dataclass
class Desk:
    """A desk whose calls end when they are told to."""

    usage: Usage = IDLE
    halted: list[str] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)

    def status(self) -> DeskStatus:
        self.asked.set()
        return DeskStatus({"teacher": 3}, {"drafts": 1}, self.usage)

    def halt(self, reason: str) -> None:
        self.halted.append(reason)
        self.usage = replace(self.usage, stop=Stop(HALTED, reason))


class Rows:
    """A plan that yields until it is interrupted."""

    def __init__(self, *steps: object, endless: bool = True) -> None:
        self.steps = steps
        self.endless = endless
        self.cleaned_up = False

    def iter_batches(self) -> Iterator[object]:
        try:
            for step in self.steps:
                step()  # type: ignore[operator]
                yield None
            while self.endless:
                threading.Event().wait(0.01)
                yield None
        finally:
            self.cleaned_up = True


def run(plan: Rows, desk: Desk) -> str:
    stream = io.StringIO()
    line = StageLine("generation", 4, "rows", stream)
    follow(plan, desk, line, "teacher", 0, Teaching(4, 0, None, priced=False))
    line.finish()
    return stream.getvalue()


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_a_plan_that_ends_is_counted_to_the_end() -> None:
    before = signal.getsignal(signal.SIGINT)
    assert "4/4 rows  1 failed" in run(Rows(endless=False), Desk())
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_waits_for_the_calls_under_way() -> None:
    desk = Desk(replace(IDLE, num_in_flight=2))
    halted_first = []

    def end_calls() -> None:
        while not desk.halted:
            threading.Event().wait(0.01)
        halted_first.append(True)
        desk.usage = replace(desk.usage, num_in_flight=0)

    ending = threading.Thread(target=end_calls)
    plan = Rows(ctrl_c, ending.start)
    with pytest.raises(KeyboardInterrupt):
        run(plan, desk)
    ending.join()
    assert (halted_first, desk.halted) == ([True], ["stopped by Ctrl-C"])


def test_a_second_ctrl_c_does_not_wait() -> None:
    desk = Desk(replace(IDLE, num_in_flight=2))
    with pytest.raises(KeyboardInterrupt):
        run(Rows(ctrl_c, ctrl_c), desk)


def test_a_stop_of_the_governor_is_one_line() -> None:
    desk = Desk(replace(IDLE, stop=Stop("budget", "spent $1 of teacher.max_usd=$1")))
    with pytest.raises(UserError, match=r"stopped \(budget\): spent \$1 of teacher.max_usd"):
        run(Rows(), desk)
    assert desk.halted == []


def test_a_plan_that_ends_because_calls_stopped_has_not_ended_well() -> None:
    broken = Desk(replace(IDLE, stop=Stop("breaker", "unauthorized: HTTP 401")))
    with pytest.raises(UserError, match="HTTP 401"):
        run(Rows(endless=False), broken)
    halted = Desk(replace(IDLE, stop=Stop(HALTED, "Ctrl-C")))
    with pytest.raises(KeyboardInterrupt):
        run(Rows(endless=False), halted)
