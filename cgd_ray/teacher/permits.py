"""One process's side of the governor: every attempt at a call waits here for its permit."""

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from cgd_ray.teacher.completion import Completion, TeacherError
from cgd_ray.teacher.governor import Grant, Report, Stop, Totals, Want, add
from cgd_ray.teacher.prices import Price, cost_usd

_HEARTBEAT_S = 1.0
_MOST_WANTS = 256  # in one report
# Errors that no provider bills, as are those that stop everything (a refused key); any other call
# may have been answered on the way.
_UNBILLED = frozenset({"rate_limited", "overloaded", "bad_request"})
_OVERLOADS = frozenset({"overloaded", "timeout"})


class Permits:
    """Hands out the calls that the governor grants, first come first served.

    All waiters share one report at a time, so that the governor hears of many calls at once. While
    calls are under way it reports at least once a second.

    Args:
        exchange: sends a report to the governor and returns its answer.
        max_in_flight: calls under way at once in this process.
        price: of the teacher; None: not known, and nothing is counted as spent.
        clock: time in seconds, steady.
    """

    def __init__(
        self,
        exchange: Callable[[Report], Awaitable[Grant]],
        max_in_flight: int,
        price: Price | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.price = price
        self._exchange = exchange
        self._max_in_flight = max_in_flight
        self._clock = clock
        self._client_id = uuid.uuid4().hex
        self._waiting: deque[Call] = deque()
        self._in_flight: set[Call] = set()
        self._totals = Totals()
        self._told = Totals()  # what the governor has heard
        self._paused_until_s = 0.0
        self._fatal: str | None = None
        self._stop: Stop | None = None
        self._news = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    def call(self, estimated_tokens: int, worst: float) -> "Call":
        """Return a call to enter with `async with`, which waits for the permit.

        Its body must end with `finished` or `failed`; one that does neither (it was cancelled)
        counts as perhaps billed.

        Args:
            estimated_tokens: input and output.
            worst: dollars that it can cost at most.
        """
        return Call(self, Want(estimated_tokens, worst))

    async def enter(self, call: "Call") -> None:
        """Wait for a call's permit.

        Raises:
            TeacherError: the governor stopped the run.
        """
        if self._stop is None:
            self._waiting.append(call)
            # Behind calls that wait already, a new one changes nothing.
            if len(self._waiting) == 1:
                self._wake()
            try:
                await call.granted
            except asyncio.CancelledError:
                self._give_up(call)
                raise
        if self._stop is not None and call not in self._in_flight:
            raise TeacherError(self._stop.reason, self._stop.detail, stop=True)

    def leave(self, call: "Call", ended: Totals, error: TeacherError | None = None) -> None:
        """Count a call that ended."""
        self._in_flight.discard(call)
        self._totals = add(self._totals, ended)
        if error is not None and error.retry_after_s:
            until_s = self._clock() + error.retry_after_s
            self._paused_until_s = max(self._paused_until_s, until_s)
        if error is not None and error.stop:
            self._fatal = self._fatal or f"{error.reason}: {error.detail}"
        self._wake()

    async def close(self) -> None:
        """Wait until the governor knows of every call that ended."""
        if self._pump is not None:
            await self._pump

    def now_s(self) -> float:
        """Return the time."""
        return self._clock()

    def _give_up(self, call: "Call") -> None:
        if call in self._in_flight:  # granted in the moment of the cancellation: never made
            self._in_flight.discard(call)
        else:
            self._waiting.remove(call)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run())
            self._pump.add_done_callback(self._ended)

    def _ended(self, pump: asyncio.Task[None]) -> None:
        """Pass on what ended the reports (a lost governor) to all that wait."""
        error = asyncio.CancelledError() if pump.cancelled() else pump.exception()
        waiting, self._waiting = self._waiting, deque[Call]()
        for call in waiting:
            if error is not None and not call.granted.done():
                call.granted.set_exception(error)

    async def _run(self) -> None:
        while self._waiting or self._in_flight or self._told != self._totals:
            self._news.clear()
            await asyncio.sleep(0)  # all that are ready to wait are told of together
            report = self._report()
            grant = await self._exchange(report)
            self._told = report.totals
            self._start(grant)
            await asyncio.sleep(grant.collect_s)
            await self._news_or(min(grant.wait_s, _HEARTBEAT_S) - grant.collect_s)

    async def _news_or(self, wait_s: float) -> None:
        """Wait for a change, or as long as said."""
        if wait_s > 0 and not self._news.is_set():
            timer = asyncio.get_running_loop().call_later(wait_s, self._news.set)
            await self._news.wait()
            timer.cancel()

    def _report(self) -> Report:
        free = min(_MOST_WANTS, self._max_in_flight - len(self._in_flight))
        return Report(
            client_id=self._client_id,
            in_flight=len(self._in_flight),
            reserved_tokens=sum(call.want.tokens for call in self._in_flight),
            reserved_usd=sum(call.want.worst_usd for call in self._in_flight),
            wants=tuple(call.want for call, _ in zip(self._waiting, range(free), strict=False)),
            totals=self._totals,
            pause_s=max(0.0, self._paused_until_s - self._clock()),
            fatal=self._fatal,
        )

    def _start(self, grant: Grant) -> None:
        self._stop = grant.stop
        # A waiter may have been cancelled meanwhile: the next report corrects the count.
        for _ in range(min(grant.num_calls, len(self._waiting))):
            call = self._waiting.popleft()
            self._in_flight.add(call)
            call.granted.set_result(None)
        if self._stop is not None:
            waiting, self._waiting = self._waiting, deque[Call]()
            for call in waiting:
                call.granted.set_result(None)


class Call:
    """One attempt: made by `Permits.call`, entered with `async with`."""

    def __init__(self, permits: Permits, want: Want) -> None:
        self.want = want
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._permits = permits
        self._started_s = 0.0
        self._done = False

    async def __aenter__(self) -> Self:
        await self._permits.enter(self)
        self._started_s = self._permits.now_s()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._done:
            self._permits.leave(self, self._unanswered(billed=True))

    def finished(self, answer: Completion) -> None:
        """Count the answer."""
        self._done = True
        used = answer.num_input_tokens + answer.num_output_tokens
        told = used > 0  # some servers tell no usage
        price = self._permits.price
        totals = Totals(
            num_calls=1,
            num_answers=1,
            num_input_tokens=answer.num_input_tokens,
            num_cached_tokens=answer.num_cached_tokens,
            num_output_tokens=answer.num_output_tokens,
            num_limited_tokens=used if told else self.want.tokens,
            latency_s=self._permits.now_s() - self._started_s,
            usd=cost_usd(price, answer) if price and told else 0.0,
            usd_at_risk=0.0 if told else self.want.worst_usd,
        )
        self._permits.leave(self, totals)

    def failed(self, error: TeacherError, *, retried: bool) -> None:
        """Count the failure.

        Args:
            error: of the call.
            retried: the same request will be sent again.
        """
        self._done = True
        totals = Totals(
            num_retries=retried,
            num_rate_limited=error.reason == "rate_limited",
            num_overloads=_is_overload(error),
        )
        billed = not error.stop and error.reason not in _UNBILLED
        ended = add(totals, self._unanswered(billed=billed))
        self._permits.leave(self, ended, error)

    def _unanswered(self, *, billed: bool) -> Totals:
        if not billed:
            return Totals(num_calls=1)
        want = self.want
        return Totals(num_calls=1, num_limited_tokens=want.tokens, usd_at_risk=want.worst_usd)


def _is_overload(error: TeacherError) -> bool:
    """Return whether fewer calls at once would help: a server that says when is only paused."""
    if error.reason == "rate_limited":
        return error.retry_after_s is None
    return error.reason in _OVERLOADS
