"""Drivers that contend for one run while owners are killed, paused or end: rounds of contention."""

import random
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass

from cgd_ray.records import Draft
from cgd_ray.shards import read_records
from tests.support.s3 import BUCKET, S3UnderFire

LEASE_S = 3.0
_LIMIT_S = 60
_HOSTS = ("", "", "elsewhere", "faraway")  # two contenders of this machine, two of others


@dataclass(frozen=True, slots=True)
class LeaseReport:
    """What came of several rounds of contention for one run."""

    num_rounds: int
    num_one_winner: int
    num_paused: int
    num_fenced: int  # paused owners that found themselves replaced when they woke up
    num_rows: int  # committed by all owners, each read once


def contend(fire: S3UnderFire, seed: int, num_rounds: int) -> LeaseReport:
    """Let four drivers contend in each round; then the winner is killed, paused or ended."""
    draw, name = random.Random(seed), f"lease-{seed}"
    one_winner, paused, fenced = 0, [], 0
    with ExitStack() as stack:
        for epoch in range(1, num_rounds + 1):
            drivers = [_driver(stack, f"{BUCKET}/{name}", host) for host in _HOSTS]
            lines = [_first_line(driver) for driver in drivers]
            winners = [d for d, line in zip(drivers, lines, strict=True) if line]
            one_winner += lines.count(f"epoch {epoch}") == 1 and len(winners) == 1
            for driver in drivers:
                if driver not in winners:
                    assert driver.wait(_LIMIT_S) == 2, driver.communicate()[1]
            for winner in winners:
                paused += _dispose(winner, draw)
        last = _driver(stack, f"{BUCKET}/{name}", "last")
        assert _first_line(last)
        for driver in paused:
            driver.send_signal(signal.SIGCONT)
            fenced += driver.wait(_LIMIT_S) == 2
        last.communicate("", timeout=_LIMIT_S)
    rows = read_records(fire.direct(name), "run", Draft)
    assert list(rows) == sorted(f"p{number}/0" for number in range(len(rows)))
    return LeaseReport(num_rounds, one_winner, len(paused), fenced, len(rows))


def _dispose(owner: subprocess.Popen[str], draw: random.Random) -> list[subprocess.Popen[str]]:
    """Kill, pause or end an owner; return it if it was paused."""
    how = draw.choice(("kill", "pause", "end"))
    if how == "pause":
        owner.send_signal(signal.SIGSTOP)
        return [owner]
    if how == "kill":
        owner.kill()
    owner.communicate("" if how == "end" else None, timeout=_LIMIT_S)
    return []


def _driver(stack: ExitStack, root: str, host: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.lease_holder", root, "run", str(LEASE_S), host],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    stack.enter_context(process)
    stack.callback(process.kill)
    return process


def _first_line(driver: subprocess.Popen[str]) -> str:
    assert driver.stdout is not None
    return driver.stdout.readline().strip()
