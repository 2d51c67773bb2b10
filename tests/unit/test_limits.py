"""How fast and how many at once: schedules by hand, and servers simulated in virtual time."""

import random
from collections.abc import Callable

import pytest

from cgd_ray.teacher.governor import Limits
from cgd_ray.teacher.limits import InFlightLimit, RateLimit
from tests.support.simulated_teacher import (
    Outcome,
    Simulated,
    ask_many,
    batching,
    queueing,
    steady,
    uneven,
)
from tests.support.virtual_time import run_virtually

SLOT_S = 60 / 200
SPAN_S = 60 * 1.015


def starts(limit: RateLimit, units: float, until_s: float) -> list[float]:
    """Return when calls start that each wait exactly as long as told."""
    now, times = 0.0, []
    while now < until_s:
        wait = limit.wait_s(units, now)
        if wait:
            now += wait + 1e-9
        else:
            limit.take(units, now)
            times.append(now)
    return times


def test_calls_are_spread_over_the_minute() -> None:
    times = starts(RateLimit(6, 60), 1, 59)
    # A sixth of 60.9 s apart; the burst allowance of 0.6 s is spent once.
    assert times == pytest.approx([0, 9.55, 19.7, 29.85, 40.0, 50.15], abs=1e-6)


def test_the_seventh_call_of_six_a_minute_waits_until_the_first_is_a_minute_old() -> None:
    limit = RateLimit(6, 60)
    for i in range(6):
        limit.take(1, float(i))
    # Paced until 60.9 s, less the burst of 0.6 s; the first call's slot counts until 61.2 s.
    assert limit.wait_s(1, 6.0) == pytest.approx(SLOT_S + SPAN_S - 6.0)
    assert limit.wait_s(1, SLOT_S + SPAN_S) == 0


def windows_are_kept(starts_s: list[tuple[float, float]], limit: float, window_s: float) -> bool:
    """Return whether no window that ends at a start holds more than the limit."""
    return all(
        sum(units for at_s, units in starts_s if end_s - window_s < at_s <= end_s) <= limit
        for end_s, _ in starts_s
    )


@pytest.mark.parametrize("seed", range(5))
def test_no_window_of_a_minute_holds_more_than_the_limit_however_clients_come(seed: int) -> None:
    draw, limit = random.Random(seed), RateLimit(1000, 60)
    now, made = 0.0, []
    while now < 400:
        units = draw.choice([1, 5, 40, 300])
        now += draw.choice([0.0, 0.01, 1.0, 20.0 * (draw.random() < 0.02)])
        now += (wait := limit.wait_s(units, now)) + (1e-9 if wait else 0)
        if limit.wait_s(units, now) == 0:
            limit.take(units, now)
            made.append((now, units))
    assert windows_are_kept(made, 1000, 60)
    assert sum(units for _, units in made) > 0.6 * 1000 / 60 * now


def test_a_steady_stream_comes_to_at_least_97_percent() -> None:
    assert len(starts(RateLimit(500, 60), 1, 600)) >= 0.97 * 5000
    assert len(starts(RateLimit(100_000, 60), 250, 600)) * 250 >= 0.97 * 1_000_000


def test_what_was_not_used_may_be_used_by_others() -> None:
    limit = RateLimit(6000, 60)
    limit.take(3000, 0.0)
    assert limit.wait_s(100, 0.0) == pytest.approx(30.45 - 0.6)
    limit.correct(-2000, 0.0)
    assert limit.wait_s(100, 0.0) == pytest.approx(10.15 - 0.6)
    limit.correct(1000, 0.0)
    assert limit.wait_s(100, 0.0) == pytest.approx(20.3 - 0.6)


def test_a_call_above_the_whole_limit_goes_alone() -> None:
    limit = RateLimit(100, 60)
    assert limit.wait_s(1000, 0.0) == 0
    limit.take(10, 0.0)
    assert limit.wait_s(1000, 1.0) == pytest.approx(SLOT_S + SPAN_S - 1.0)


def test_an_overload_cuts_once_a_round_trip_and_never_below_one() -> None:
    limit = InFlightLimit(16)
    limit.overloaded(16, 0.0)
    limit.overloaded(16, 0.5)
    assert limit.calls == 11
    for second in range(1, 20):
        limit.overloaded(limit.calls, second * 1.0)
    assert limit.calls == 1


def test_the_limit_grows_back_a_call_a_round_trip() -> None:
    limit = InFlightLimit(16)
    now = 0.0
    for _ in range(8):  # a first round, for the floor
        limit.observe(4, 4.0, 16, now)
        now += 1
    limit.overloaded(16, now)
    cut = limit.calls
    limit.observe(cut, cut * 1.0, cut, now + 1)
    assert limit.calls == cut + 1


def run(make: Callable[[], Simulated], num_calls: int, max_in_flight: int = 64) -> Outcome:
    async def main() -> Outcome:
        return await ask_many(make(), Limits(max_in_flight=max_in_flight), num_calls)

    return run_virtually(main())


@pytest.mark.parametrize(("latency_s", "num_calls"), [(0.2, 4000), (2.0, 4000)])
def test_a_healthy_server_is_not_throttled(latency_s: float, num_calls: int) -> None:
    outcome = run(lambda: steady(latency_s), num_calls)
    assert len(outcome.answers) == num_calls
    assert num_calls / outcome.took_s >= 0.95 * 64 / latency_s
    assert set(outcome.max_in_flight[10:]) == {64}


@pytest.mark.parametrize("seed", range(2))
def test_latencies_that_vary_wildly_are_no_queue(seed: int) -> None:
    outcome = run(lambda: uneven(2.0, seed), 4000)
    learnt = outcome.max_in_flight[30:]
    assert sum(learnt) / len(learnt) >= 0.85 * 64


@pytest.mark.parametrize("seed", range(2))
def test_calls_in_flight_shrink_to_what_a_queueing_server_works_on(seed: int) -> None:
    outcome = run(lambda: queueing(16, 1.0, seed), 3000)
    learnt = outcome.max_in_flight[40:]
    assert 16 <= sum(learnt) / len(learnt) <= 32
    assert 3000 / outcome.took_s >= 0.95 * 16


def test_a_server_that_batches_keeps_its_batch() -> None:
    outcome = run(lambda: batching(1.0, 64), 5000)
    assert 5000 / outcome.took_s >= 0.95 * 64 / (1 + 64 / 64)
    assert sum(outcome.max_in_flight[20:]) / len(outcome.max_in_flight[20:]) >= 60
