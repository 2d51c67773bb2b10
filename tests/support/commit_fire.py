"""Commits while processes are killed, race each other and meet an S3 server that fails.

Tests run these with small numbers, `make chaos` with large ones. Children are forked from a clean
server process, so that one costs milliseconds and can be killed at any moment.
"""

import multiprocessing as mp
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, product
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

from cgd_ray.records import Draft, Failure, Record
from cgd_ray.shards import commit_shard
from cgd_ray.store import S3Store
from tests.support.fault_proxy import Fault, Operation, Plan, healthy
from tests.support.row_checker import Violations, check_shards
from tests.support.s3 import BUCKET, S3UnderFire

FOLDER = "drafts"
LIMIT_S = 120
_FORKS = mp.get_context("forkserver")
# A child imports the main module again (pytest, a benchmark): let the server have its imports.
warnings.filterwarnings("ignore", "'.*' found in sys.modules", RuntimeWarning)
_MAIN = getattr(sys.modules["__main__"], "__spec__", None)
_FORKS.set_forkserver_preload(["tests.support.commit_fire", *([_MAIN.name] if _MAIN else [])])
Shard = list[Record]
Environment = dict[str, str]


def make_shard(number: int, num_rows: int = 5, text: str = "a draft") -> Shard:
    """Return a shard with drafts and a failure: two files and a commit, so three requests."""
    names = [f"s{number}r{row}" for row in range(num_rows)]
    drafts = [Draft(f"{n}/0", n, f"{text} {n}", "stop", 3, number) for n in names]
    failure = Failure(f"s{number}x/0", "drafts", "too_long", text, permanent=True)
    return [*drafts, failure]


def flat(shards: list[Shard]) -> Shard:
    """Return the rows of all shards."""
    return [row for shard in shards for row in shard]


@dataclass(frozen=True, slots=True)
class CutReport:
    """What came of killing a process at every point of its commits."""

    num_operations: int  # S3 requests of the uncut work
    num_kills: int
    violations: Violations  # after the kill, and after the same work again


def kill_everywhere(fire: S3UnderFire, num_shards: int = 1) -> CutReport:
    """Kill the committing process at every request of its work, one run each, then do it again.

    The kill falls before or after the request reaches the server; on the first attempt, or on
    the attempt that follows a lost request or a lost answer.
    """
    shards = [make_shard(number) for number in range(num_shards)]
    _commit_in_child(fire, "uncut", shards, lambda pid: healthy)
    num_operations = len(fire.proxy.operations)
    violations, num_kills = Violations(), 0
    for number, earlier, last in product(
        range(1, num_operations + 1),
        (None, "cut_before", "cut_after"),
        ("cut_before", "cut_after"),
    ):
        name = f"cut-{number}-{earlier}-{last}"
        faults = [kind for kind in (earlier, last) if kind]

        def plan_for(pid: int, number: int = number, faults: list[str] = faults) -> Plan:
            def kill() -> None:
                os.kill(pid, signal.SIGKILL)

            def plan(operation: Operation) -> Fault | None:
                index = operation.number - number
                if not 0 <= index < len(faults):
                    return None
                return Fault(faults[index], then=kill if index == len(faults) - 1 else None)  # pyright: ignore[reportArgumentType]

            return plan

        status = _commit_in_child(fire, name, shards, plan_for)
        assert status == -signal.SIGKILL, f"{name}: the process ended with {status}"
        num_kills += 1
        store = fire.direct(name)
        violations += check_shards(store, FOLDER, flat(shards), unfinished=True)
        for shard in shards:
            commit_shard(store, FOLDER, shard)
        violations += check_shards(store, FOLDER, flat(shards))
    return CutReport(num_operations, num_kills, violations)


def _commit_in_child(
    fire: S3UnderFire, name: str, shards: list[Shard], plan_for: Callable[[int], Plan]
) -> int | None:
    """Commit shards in a process of its own; return its exit status."""
    fire.proxy.operations.clear()
    fire.proxy.plan = healthy
    may_start = _FORKS.Event()
    process = _FORKS.Process(target=_commit, args=(_aws(), name, shards, may_start))
    process.start()
    assert process.pid is not None
    fire.proxy.plan = plan_for(process.pid)
    may_start.set()
    process.join(LIMIT_S)
    fire.proxy.plan = healthy
    return process.exitcode


def _commit(aws: Environment, name: str, shards: list[Shard], may_start: threading.Event) -> None:
    os.environ.update(aws)
    may_start.wait(LIMIT_S)
    store = S3Store(f"{BUCKET}/{name}")
    for shard in shards:
        commit_shard(store, FOLDER, shard)


@dataclass(frozen=True, slots=True)
class RaceReport:
    """What came of several processes committing the same rows at the same moment."""

    num_races: int
    num_one_winner: int
    violations: Violations


def race_commits(
    fire: S3UnderFire, seed: int, num_races: int, num_processes: int = 8
) -> RaceReport:
    """Let processes commit the same keys with texts of their own; the winner's must be whole."""
    name, barrier, wins = f"race-{seed}", _FORKS.Barrier(num_processes), _FORKS.Queue()
    processes = [
        _FORKS.Process(target=_race, args=(_aws(), name, seed, num_races, me, barrier, wins))
        for me in range(num_processes)
    ]
    for process in processes:
        process.start()
    results = dict(wins.get(timeout=LIMIT_S) for _ in processes)
    for process in processes:
        process.join(LIMIT_S)
    winners = [[me for me in results if results[me][race]] for race in range(num_races)]
    one = [who[0] for who in winners if len(who) == 1]
    shards = [make_shard(race, text=f"by {who[0]}") for race, who in enumerate(winners) if who]
    violations = check_shards(fire.direct(name), FOLDER, flat(shards))
    return RaceReport(num_races, len(one), violations)


def _race(
    aws: Environment,
    name: str,
    seed: int,
    num_races: int,
    me: int,
    barrier: Barrier,
    wins: "Queue[tuple[int, list[bool]]]",
) -> None:
    os.environ.update(aws)
    store, draw, won = S3Store(f"{BUCKET}/{name}"), random.Random(f"{seed}/{me}"), []
    for race in range(num_races):
        barrier.wait(LIMIT_S)
        time.sleep(draw.choice((0, 0, 0.001, 0.003, 0.01)))
        won.append(commit_shard(store, FOLDER, make_shard(race, text=f"by {me}")))
    wins.put((me, won))


@dataclass(frozen=True, slots=True)
class OutageReport:
    """What came of a stream of commits during an outage."""

    num_shards: int  # committed in all
    num_faults: int  # requests that the proxy broke
    outage_s: float
    longest_commit_s: float
    violations: Violations


def brown_out(fire: S3UnderFire, seed: int, outage_s: float, share: float = 1.0) -> OutageReport:
    """Break requests at random (503, resets before and after, stalls, cut answers) for a while."""
    draw, faults = random.Random(seed), count()
    ends = time.monotonic() + outage_s
    kinds = ("unavailable", "cut_before", "cut_after", "stall", "truncate", "delay")

    def plan(operation: Operation) -> Fault | None:
        if time.monotonic() > ends or draw.random() > share:
            return None
        next(faults)
        return Fault(draw.choice(kinds), draw.uniform(0, min(3.0, outage_s / 4)))

    def outage() -> None:
        fire.proxy.plan = plan
        time.sleep(outage_s)

    return _stream(fire, f"brown-out-{seed}", outage, lambda: next(faults), outage_s)


def server_killed(fire: S3UnderFire, name: str, away_s: float) -> OutageReport:
    """`kill -9` the server in the middle of a stream of commits and start it again."""
    return _stream(fire, name, lambda: fire.kill_and_restart(away_s), lambda: 0, away_s)


def _stream(
    fire: S3UnderFire,
    name: str,
    outage: Callable[[], None],
    num_faults: Callable[[], int],
    outage_s: float,
) -> OutageReport:
    """Commit shard after shard before, during and after an outage."""
    committed, seconds, over = [], [], threading.Event()
    store = fire.through_proxy(name)

    def numbers() -> Iterator[int]:
        """Yield shard numbers until five after the end of the outage."""
        left = 5
        for number in count():
            left -= over.is_set()
            if left < 0:
                return
            yield number

    def work() -> None:
        for number in numbers():
            began = time.monotonic()
            shard = make_shard(number)
            commit_shard(store, FOLDER, shard)
            committed.append(shard)
            seconds.append(time.monotonic() - began)

    worker = threading.Thread(target=work)
    worker.start()
    while len(committed) < 3 and worker.is_alive():
        time.sleep(0.01)
    try:
        outage()
    finally:
        fire.proxy.plan = healthy
        over.set()
        worker.join(LIMIT_S)
    assert len(committed) >= 8, "the stream of commits broke off"
    violations = check_shards(fire.direct(name), FOLDER, flat(committed))
    return OutageReport(len(committed), num_faults(), outage_s, max(seconds), violations)


def _aws() -> Environment:
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
