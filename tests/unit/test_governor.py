"""The governor: what it grants, corrects, forgets and stops, in hand-made and virtual time."""

import asyncio
import dataclasses
import pickle

import pytest

from cgd_ray.teacher.completion import Completion, TeacherError
from cgd_ray.teacher.governed import governed_ask
from cgd_ray.teacher.governor import Governor, Grant, Limits, Report, Stop, Totals, Want
from cgd_ray.teacher.permits import Permits
from cgd_ray.teacher.prices import Price, cost_usd, worst_usd
from tests.support.records import completion
from tests.support.simulated_teacher import MESSAGES, Simulated, ask_many, steady
from tests.support.virtual_time import run_virtually

CALL = Want(tokens=100, worst_usd=0.10)


def report(num_wants: int = 0, client_id: str = "a", **state: object) -> Report:
    empty = Report(client_id, 0, 0, 0.0, (CALL,) * num_wants, Totals())
    return dataclasses.replace(empty, **state)


def under_way(count: int, client_id: str = "a", num_wants: int = 0, **state: object) -> Report:
    held = {"reserved_tokens": 100 * count, "reserved_usd": 0.10 * count}
    return report(num_wants, client_id, in_flight=count, **held, **state)


def test_reports_and_grants_travel() -> None:
    governor = pickle.loads(pickle.dumps(Governor(Limits(max_requests_per_minute=10))))
    assert pickle.loads(pickle.dumps(governor.exchange(report(1), 0.0))).num_calls == 1
    assert pickle.loads(pickle.dumps(report(3))) == report(3)


def test_calls_in_flight_are_shared_by_all_clients() -> None:
    governor = Governor(Limits(max_in_flight=10))
    assert governor.exchange(report(8), 0.0).num_calls == 8
    grant = governor.exchange(report(8, "b"), 0.1)
    assert grant.num_calls == 2
    assert 0 < grant.wait_s <= 1
    # A call of the first client ended.
    governor.exchange(under_way(7), 0.2)
    assert governor.exchange(under_way(2, "b", num_wants=6), 0.3).num_calls == 1


def test_requests_and_tokens_of_all_clients_share_one_minute() -> None:
    governor = Governor(Limits(max_requests_per_minute=60, max_in_flight=1000))
    assert governor.exchange(report(1), 0.0).num_calls == 1
    assert governor.exchange(report(1, "b"), 0.0).wait_s == pytest.approx(60.9 / 60 - 0.6)
    tokens = Governor(Limits(max_tokens_per_minute=6000, max_in_flight=1000))
    assert tokens.exchange(report(2), 0.0).num_calls == 1
    assert tokens.exchange(report(1, "b"), 0.0).wait_s == pytest.approx(60.9 / 60 - 0.6)


def test_an_estimate_is_corrected_by_the_answer() -> None:
    governor = Governor(Limits(max_tokens_per_minute=600, max_in_flight=1000))
    governor.exchange(report(1), 0.0)
    assert governor.exchange(report(1, "b"), 0.0).wait_s == pytest.approx(10.15 - 0.6)
    used = Totals(num_calls=1, num_answers=1, num_limited_tokens=40, latency_s=1.0)
    governor.exchange(report(totals=used), 0.0)
    assert governor.exchange(report(1, "b"), 0.0).wait_s == pytest.approx(4.06 - 0.6)


def test_a_lost_answer_of_the_governor_costs_no_permit() -> None:
    governor = Governor(Limits(max_in_flight=4))
    assert governor.exchange(report(4), 0.0).num_calls == 4
    # The client never heard of it: its state says so.
    assert governor.exchange(report(4), 0.1).num_calls == 4


def test_a_pause_holds_everyone_for_as_long_as_the_server_said() -> None:
    governor = Governor(Limits())
    assert governor.exchange(report(pause_s=600.0), 0.0).num_calls == 0
    grant = governor.exchange(report(1, "b"), 1.0)
    assert (grant.num_calls, grant.wait_s) == (0, 599.0)
    # The same pause told again is no longer pause.
    governor.exchange(report(pause_s=400.0), 200.0)
    assert governor.exchange(report(1, "b"), 599.9).num_calls == 0
    assert governor.exchange(report(1, "b"), 600.1).num_calls == 1


def test_the_first_fatal_error_stops_everyone() -> None:
    governor = Governor(Limits())
    stop = Stop("breaker", "unauthorized: HTTP 401")
    assert governor.exchange(report(1, fatal="unauthorized: HTTP 401"), 0.0).stop == stop
    grant = governor.exchange(report(5, "b"), 1.0)
    assert (grant.num_calls, grant.stop) == (0, stop)


def test_retries_have_a_budget_over_all_clients_with_a_hundred_free() -> None:
    governor = Governor(Limits(max_retry_share=0.5))
    half = Totals(num_calls=60, num_retries=50)
    assert governor.exchange(report(1, totals=half), 0.0).stop is None
    assert governor.exchange(report(1, "b", totals=half), 0.0).stop is None
    more = dataclasses.replace(half, num_retries=51)
    stop = governor.exchange(report(1, "b", totals=more), 0.0).stop
    assert stop is not None
    assert stop.reason == "retries"
    assert "101 of 120 calls" in stop.detail
    assert "teacher.max_retry_share=0.5" in stop.detail
    many = Governor(Limits(max_retry_share=0.5))
    fine = Totals(num_calls=1000, num_retries=500)
    assert many.exchange(report(1, totals=fine), 0.0).stop is None


def test_no_call_starts_that_could_pass_the_cap() -> None:
    governor = Governor(Limits(max_usd=1.0, already_spent_usd=0.65))
    assert governor.exchange(report(9), 0.0).num_calls == 3
    grant = governor.exchange(under_way(3, num_wants=1), 1.0)
    assert (grant.num_calls, grant.stop) == (0, None)
    # Two of the three cost much less than they could have: there is room again.
    spent = Totals(num_calls=2, num_answers=2, usd=0.02)
    assert governor.exchange(under_way(1, num_wants=9, totals=spent), 2.0).num_calls == 2
    end = Totals(num_calls=5, num_answers=5, usd=0.30)
    stop = governor.exchange(report(1, totals=end), 3.0).stop
    assert stop is not None
    assert stop.reason == "budget"
    assert stop.detail.startswith("spent $0.95 of teacher.max_usd=$1, and the next call may cost")


def test_calls_that_may_be_billed_count_against_the_cap() -> None:
    governor = Governor(Limits(max_usd=0.5))
    risky = Totals(num_calls=5, usd_at_risk=0.45)
    stop = governor.exchange(report(1, totals=risky), 0.0).stop
    assert stop is not None
    assert "up to $0.45 more on calls that ended without an answer" in stop.detail


def test_a_lost_client_frees_its_calls_but_not_what_they_may_cost() -> None:
    governor = Governor(Limits(max_in_flight=4, max_usd=0.85, silence_s=60))
    governor.exchange(report(4), 0.0)
    assert governor.exchange(report(4, "b"), 59.0).num_calls == 0
    assert governor.exchange(report(4, "b"), 61.0).num_calls == 4
    assert governor.usage(61.0).at_risk_usd == pytest.approx(0.4)
    # It was only slow: its four answers cost less than feared.
    late = Totals(num_calls=4, num_answers=4, usd=0.04)
    governor.exchange(report(0, totals=late), 62.0)
    assert governor.usage(62.0).at_risk_usd == pytest.approx(0)
    assert governor.usage(62.0).spent_usd == pytest.approx(0.04)


def test_a_restarted_governor_learns_from_its_clients_what_was_spent() -> None:
    governor = Governor(Limits(max_usd=1.0, max_tokens_per_minute=1000))
    spent = Totals(num_calls=99, num_answers=99, num_limited_tokens=10**6, usd=0.9)
    grant = governor.exchange(under_way(0, num_wants=2, totals=spent), 0.0)
    assert grant.num_calls == 1
    assert governor.usage(0.0).spent_usd == pytest.approx(0.9)


PRICE = Price(2.0, 0.5, 8.0)
ANSWER = completion(num_input_tokens=10, num_cached_tokens=0, num_output_tokens=5)


@pytest.mark.parametrize("seed_usd", [0.0, 0.003])
def test_a_run_ends_below_its_cap_and_says_why(seed_usd: float) -> None:
    worst, cost = worst_usd(PRICE, MESSAGES, 10), cost_usd(PRICE, ANSWER)
    limits = Limits(max_in_flight=8, max_usd=0.01, already_spent_usd=seed_usd)
    teacher = steady(1.0)
    teacher.answer = ANSWER
    outcome = run_virtually(ask_many(teacher, limits, 500, price=PRICE))
    spent = outcome.governor.usage(0.0).spent_usd
    assert spent == pytest.approx(seed_usd + len(outcome.answers) * cost)
    assert 0.01 - worst < spent <= 0.01
    assert teacher.num_calls == len(outcome.answers)
    assert {error.reason for error in outcome.errors} == {"budget"}
    assert len(outcome.answers) + len(outcome.errors) == 500


class Revoked(Simulated):
    """Refuses its key after some calls."""

    async def complete(self, messages: list, max_tokens: int) -> Completion:
        answer = await super().complete(messages, max_tokens)
        if self.num_calls > 100:
            raise TeacherError("unauthorized", "HTTP 401", stop=True)
        return answer


def test_a_revoked_key_costs_at_most_the_calls_in_flight() -> None:
    teacher = Revoked(lambda: asyncio.sleep(1.0), ANSWER)
    outcome = run_virtually(ask_many(teacher, Limits(max_in_flight=8), 500))
    assert 100 < teacher.num_calls <= 100 + 2 * 8
    assert {error.reason for error in outcome.errors} == {"unauthorized", "breaker"}
    assert all(error.stop for error in outcome.errors)


class Closed(Simulated):
    """Says `Retry-After: 600` until the ten minutes are over."""

    async def complete(self, messages: list, max_tokens: int) -> Completion:
        answer = await super().complete(messages, max_tokens)
        left_s = 600 - asyncio.get_running_loop().time()
        if left_s > 0:
            raise TeacherError("rate_limited", "HTTP 429", retry_after_s=left_s)
        return answer


def test_ten_minutes_of_retry_after_are_waited_for_without_a_lost_row() -> None:
    teacher = Closed(lambda: asyncio.sleep(0.1), ANSWER)
    outcome = run_virtually(ask_many(teacher, Limits(max_in_flight=8), 20, max_attempts=1))
    assert len(outcome.answers) == 20
    assert teacher.num_calls <= 20 + 8
    assert 600 <= outcome.took_s <= 603


class Down(Simulated):
    """Never answers."""

    async def complete(self, messages: list, max_tokens: int) -> Completion:
        await super().complete(messages, max_tokens)
        raise TeacherError("overloaded", "HTTP 503")


def test_a_teacher_that_is_down_ends_the_run_and_its_limit_falls() -> None:
    teacher = Down(lambda: asyncio.sleep(0.1), ANSWER)
    outcome = run_virtually(
        ask_many(teacher, Limits(max_in_flight=32, max_retry_share=0.2), 500, max_attempts=50)
    )
    assert 100 < teacher.num_calls < 300
    assert {error.reason for error in outcome.errors} == {"retries"}
    assert outcome.max_in_flight[-1] <= 16


def test_attempts_are_counted_where_the_server_says_nothing() -> None:
    teacher = Down(lambda: asyncio.sleep(0.1), ANSWER)
    outcome = run_virtually(ask_many(teacher, Limits(), 5, max_attempts=3))
    assert teacher.num_calls == 15
    assert {error.reason for error in outcome.errors} == {"overloaded"}


def one_client(exchange: object, max_in_flight: int = 4) -> Permits:
    return Permits(exchange, max_in_flight, PRICE, asyncio.get_running_loop().time)


def governed(governor: Governor) -> object:
    async def exchange(told: Report) -> Grant:
        await asyncio.sleep(0.001)
        return governor.exchange(told, asyncio.get_running_loop().time())

    return exchange


def test_cancelled_waiters_and_calls_hold_nothing_back() -> None:
    async def main() -> None:
        governor = Governor(Limits(max_in_flight=4, max_usd=100.0))
        permits = one_client(governed(governor))
        teacher = Simulated(lambda: asyncio.sleep(50), ANSWER)
        calls = [
            asyncio.create_task(governed_ask(teacher, permits, MESSAGES, 10, 1)) for _ in range(8)
        ]
        await asyncio.sleep(1)
        assert teacher.num_calls == 4
        for call in calls[:6]:
            call.cancel()
        await asyncio.sleep(1)
        assert teacher.num_calls == 6
        usage = governor.usage(asyncio.get_running_loop().time())
        assert usage.num_in_flight == 2
        assert usage.at_risk_usd == pytest.approx(4 * worst_usd(PRICE, MESSAGES, 10))
        assert len(await asyncio.gather(*calls[6:])) == 2

    run_virtually(main())


def test_hanging_calls_are_told_of_so_that_no_client_seems_lost() -> None:
    async def main() -> None:
        governor = Governor(Limits(max_in_flight=4, silence_s=5))
        permits = one_client(governed(governor))
        teacher = Simulated(lambda: asyncio.sleep(300), ANSWER)
        call = asyncio.create_task(governed_ask(teacher, permits, MESSAGES, 10, 1))
        await asyncio.sleep(200)
        assert governor.usage(200).num_in_flight == 1
        await call

    run_virtually(main())


def test_a_lost_governor_is_an_error_of_every_waiter() -> None:
    async def main() -> None:
        async def exchange(told: Report) -> Grant:
            raise ConnectionResetError("the governor is gone")

        permits = one_client(exchange)
        asked = (governed_ask(steady(1.0), permits, MESSAGES, 10, 1) for _ in range(3))
        ended = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(error) for error in ended] == [ConnectionResetError] * 3

    run_virtually(main())


def test_an_answer_without_usage_is_charged_at_its_worst() -> None:
    async def main() -> None:
        governor = Governor(Limits())
        silent = completion(num_input_tokens=0, num_cached_tokens=0, num_output_tokens=0)
        permits = one_client(governed(governor))
        await governed_ask(Simulated(lambda: asyncio.sleep(0), silent), permits, MESSAGES, 10, 1)
        await asyncio.sleep(1)
        assert governor.usage(1.0).at_risk_usd == worst_usd(PRICE, MESSAGES, 10)

    run_virtually(main())
