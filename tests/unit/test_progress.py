"""The one line of a running stage, on a terminal and in a log."""

import io
import itertools
from collections.abc import Iterator
from unittest.mock import patch

import pytest

from cgd_ray import progress
from cgd_ray.progress import Progress, clock, same_stage


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def watch() -> Iterator[Clock]:
    watch = Clock()
    with patch.object(progress, "time", watch):
        yield watch


def test_a_log_gets_a_line_every_ten_seconds_and_the_last(watch: Clock) -> None:
    log = io.StringIO()
    with Progress(log).stage("drafts", 100, "rows") as line:
        for second in range(1, 26):
            watch.now += 1
            line.update(second * 2, 1, 10)
    assert log.getvalue().splitlines() == [
        "drafts       31/100 rows  1 failed  10 done before  2.1/s  33s left  10s",
        "drafts       51/100 rows  1 failed  10 done before  2.0/s  24s left  20s",
        "drafts       61/100 rows  1 failed  10 done before  2.0/s  25s",
    ]


def test_a_quick_stage_is_one_line_in_a_log(watch: Clock) -> None:
    log = io.StringIO()
    with Progress(log).stage("prompts", None, "rows") as line:
        watch.now += 0.4
        line.update(384, note="done")
    assert log.getvalue() == "prompts      384 rows  960.0/s  0s  done\n"


def test_a_terminal_is_redrawn_in_place(watch: Clock) -> None:
    terminal = Terminal()
    with Progress(terminal).stage("teacher", 4, "rows") as line:
        for _ in range(3):
            watch.now += 0.1
            line.update(1)
        watch.now += 0.1
        line.update(4)
    drawn = terminal.getvalue().split("\r\x1b[2K")
    assert drawn == [
        "",
        "teacher      0/4 rows  0s",
        "teacher      1/4 rows  5.0/s  1s left  0s",
        "teacher      4/4 rows  10.0/s  0s",
        "teacher      4/4 rows  10.0/s  0s\n",
    ]


def test_rows_done_before_do_not_count_as_speed(watch: Clock) -> None:
    log = io.StringIO()
    with Progress(log).stage("drafts", 100, "rows") as line:
        watch.now += 10
        line.update(0, 0, 50)
        watch.now += 10
        line.update(20, 0, 50)
    first, second, _ = log.getvalue().splitlines()
    assert first == "drafts       50/100 rows  50 done before  10s"
    assert second == "drafts       70/100 rows  50 done before  1.0/s  30s left  20s"


def test_a_stage_that_fails_says_it_stopped(watch: Clock) -> None:
    log = io.StringIO()
    with pytest.raises(KeyboardInterrupt), Progress(log).stage("training", 9, "steps") as line:
        watch.now += 2
        line.update(3, note="loss 1.0")
        raise KeyboardInterrupt
    assert log.getvalue() == "training     3/9 steps  1.5/s  2s  stopped\n"


def test_a_finished_stage_is_one_line() -> None:
    log = io.StringIO()
    Progress(log).skipped("drafts", "256 drafts")
    assert log.getvalue() == "drafts       skipped: 256 drafts\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (185, "3m05s"),
        (3599, "59m59s"),
        (3599.7, "1h00m"),
        (7800, "2h10m"),
        (360_000, "100h00m"),
    ],
)
def test_durations_as_people_read_them(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_reader_can_tell_the_lines_of_a_stage(watch: Clock) -> None:
    log = io.StringIO()
    progress = Progress(log)
    for name in ("drafts", "a rather long name"):
        with progress.stage(name, 9, "rows") as line:
            watch.now += 11
            line.update(4)
    with progress.stage("prompts", None, "rows") as line:
        line.update(3)
    progress.skipped("drafts", "3 rows")
    lines = log.getvalue().splitlines()
    alike = [same_stage(a, b) for a, b in itertools.pairwise(lines)]
    assert alike == [True, False, True, False, False], lines
    assert same_stage(lines[4], lines[4])
    arithmetic = "  drafts      40 by a student"
    assert not same_stage("", "") and not same_stage(arithmetic, arithmetic)
