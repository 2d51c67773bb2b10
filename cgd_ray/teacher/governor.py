"""One governor of all teacher calls of a run: rates, calls at once, money, retries, stops.

Plain and synchronous: the cluster holds one as a Ray actor, a test or a single process calls it. A
client tells its state, never changes to it, so that a report may be lost, repeated, or be the first
that a restarted governor sees.
"""

import math
import time
from dataclasses import astuple, dataclass, field

from cgd_ray.settings import TeacherSettings
from cgd_ray.teacher.limits import InFlightLimit, RateLimit

HALTED = "halted"  # the reason of a stop that a person asked for
_FREE_RETRIES = 100
_ACTIVE_S = 5.0  # a client heard of within this time shares the governor's attention
_EXCHANGE_S = 0.001  # of the governor's time, for one client
_SHORTEST_COLLECT_S, _LONGEST_COLLECT_S = 0.003, 0.1
_SHORTEST_WAIT_S, _LONGEST_WAIT_S = 0.005, 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may do, over all its clients. None: no limit."""

    max_requests_per_minute: float | None = None
    max_tokens_per_minute: float | None = None
    max_in_flight: int = 64
    max_retry_share: float = 0.5
    max_usd: float | None = None
    already_spent_usd: float = 0.0  # by earlier attempts at the run
    minute_s: float = 60.0  # length of the server's "minute": a test shortens it
    silence_s: float = 60.0  # after which a client counts as lost


def limits_of(settings: TeacherSettings, already_spent_usd: float) -> Limits:
    """Return the limits of a whole run."""
    return Limits(
        max_requests_per_minute=settings.max_requests_per_minute,
        max_tokens_per_minute=settings.max_tokens_per_minute,
        max_in_flight=settings.max_in_flight * settings.num_actors,
        max_retry_share=settings.max_retry_share,
        max_usd=settings.max_usd,
        already_spent_usd=already_spent_usd,
    )


@dataclass(frozen=True, slots=True)
class Want:
    """A call that waits."""

    tokens: int  # input and output, estimated
    worst_usd: float  # what it can cost at most


@dataclass(frozen=True, slots=True)
class Totals:
    """What a client's calls came to since the client was made."""

    num_calls: int = 0  # that ended, one way or the other
    num_answers: int = 0
    num_retries: int = 0
    num_rate_limited: int = 0  # 429
    num_overloads: int = 0  # refused without a wish for a pause, or timed out
    num_input_tokens: int = 0
    num_cached_tokens: int = 0
    num_output_tokens: int = 0
    num_limited_tokens: int = 0  # as the rate limit counts them: used, or estimated if not told
    latency_s: float = 0.0  # sum over answers
    usd: float = 0.0
    usd_at_risk: float = 0.0  # of calls that ended without an answer and may be billed


def add(left: Totals, right: Totals, sign: int = 1) -> Totals:
    """Return the sum of two totals, or with `sign=-1` their difference."""
    return Totals(*(x + sign * y for x, y in zip(astuple(left), astuple(right), strict=True)))


@dataclass(frozen=True, slots=True)
class Report:
    """The state of one client: a process that calls the teacher."""

    client_id: str
    in_flight: int
    reserved_tokens: int  # of the calls under way, as estimated
    reserved_usd: float  # of the calls under way, at worst
    wants: tuple[Want, ...]  # calls that wait, first come first
    totals: Totals
    pause_s: float = 0.0  # what is left of the longest pause that the server asked for
    fatal: str | None = None  # an error after which no call can succeed


@dataclass(frozen=True, slots=True)
class Stop:
    """Why no call may start any more: a word, and a line for a person."""

    reason: str  # "budget", "retries", "breaker" or "halted"
    detail: str


@dataclass(frozen=True, slots=True)
class Grant:
    """The answer to a report."""

    num_calls: int  # of the wants, from the first on, that may start now
    wait_s: float  # until it is worth asking again, if nothing changes before
    collect_s: float  # least time between two reports of this client
    stop: Stop | None


@dataclass(frozen=True, slots=True)
class Usage:
    """What the run's calls came to so far: for progress lines and the end."""

    totals: Totals
    num_in_flight: int
    max_in_flight: int  # as learnt
    spent_usd: float  # earlier attempts at the run included
    at_risk_usd: float
    pause_s: float
    stop: Stop | None


@dataclass(slots=True)
class _Client:
    heard_s: float
    in_flight: int = 0
    tokens: int = 0
    charged_tokens: float = 0.0  # for them, against the rate limit
    usd: float = 0.0
    lost_usd: float = 0.0  # under way when it was lost: it may have been billed
    totals: Totals = field(default_factory=Totals)


class Governor:
    """Grants calls.

    Args:
        limits: of the run.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        minute = limits.minute_s
        requests, tokens = limits.max_requests_per_minute, limits.max_tokens_per_minute
        self._requests = RateLimit(requests, minute) if requests else None
        self._tokens = RateLimit(tokens, minute) if tokens else None
        self._in_flight = InFlightLimit(limits.max_in_flight)
        self._clients: dict[str, _Client] = {}
        self._totals = Totals()
        self._lost_usd = 0.0
        self._used, self._estimated = 1.0, 1.0  # tokens of late calls, by halves forgotten
        self._paused_until_s = -math.inf
        self._swept_s = -math.inf
        self._num_active = 1
        self._stop: Stop | None = None

    def exchange(self, report: Report, now_s: float | None = None) -> Grant:
        """Take a client's report and return what it may do.

        Args:
            report: of the client.
            now_s: the time in seconds, of any steady clock; None: this machine's.
        """
        now = time.monotonic() if now_s is None else now_s
        self._sweep(now)
        client, news = self._take(report, now)
        self._stop = self._stop or self._reason_to_stop(report)
        granted, wait = self._grant(client, report.wants, now)
        self._in_flight.observe(news.num_answers, news.latency_s, self._num_in_flight(), now)
        collect = min(_LONGEST_COLLECT_S, _EXCHANGE_S * self._num_active)
        return Grant(granted, wait, max(_SHORTEST_COLLECT_S, collect), self._stop)

    def halt(self, detail: str) -> None:
        """Let no further call start; those under way may end."""
        self._stop = self._stop or Stop(HALTED, detail)

    def usage(self, now_s: float | None = None) -> Usage:
        """Return what the run came to so far."""
        now = time.monotonic() if now_s is None else now_s
        return Usage(
            totals=self._totals,
            num_in_flight=self._num_in_flight(),
            max_in_flight=self._in_flight.calls,
            spent_usd=self._limits.already_spent_usd + self._totals.usd,
            at_risk_usd=self._totals.usd_at_risk + self._lost_usd,
            pause_s=max(0.0, self._paused_until_s - now),
            stop=self._stop,
        )

    def _take(self, report: Report, now_s: float) -> tuple[_Client, Totals]:
        """Bring what is known of a client up to date; return it and what happened since."""
        known = self._clients.get(report.client_id)
        client = known or _Client(now_s)
        news = add(report.totals, client.totals, -1)
        self._totals = add(self._totals, news)
        self._lost_usd -= client.lost_usd
        if known and self._tokens:
            self._correct_tokens(self._tokens, client, report, news, now_s)
        if known and news.num_overloads:
            self._in_flight.overloaded(self._num_in_flight(), now_s)
        if report.pause_s > 0:
            self._paused_until_s = max(self._paused_until_s, now_s + report.pause_s)
        client.heard_s, client.lost_usd, client.totals = now_s, 0.0, report.totals
        client.in_flight, client.tokens = report.in_flight, report.reserved_tokens
        client.usd = report.reserved_usd
        self._clients[report.client_id] = client
        # The first report tells the past: paid for, but of no use to limits on the present.
        return client, news if known else Totals()

    def _correct_tokens(
        self, limit: RateLimit, client: _Client, report: Report, news: Totals, now_s: float
    ) -> None:
        """Charge calls that ended for what they used, and learn how far estimates are off."""
        ended = client.tokens - report.reserved_tokens
        charged = client.charged_tokens * ended / client.tokens if client.tokens else 0.0
        client.charged_tokens -= charged
        limit.correct(news.num_limited_tokens - charged, now_s - self._in_flight.latency_s)
        if news.num_answers:
            self._used += news.num_limited_tokens
            self._estimated += ended
        if self._estimated > (self._limits.max_tokens_per_minute or math.inf):
            self._used, self._estimated = self._used / 2, self._estimated / 2

    def _grant(self, client: _Client, wants: tuple[Want, ...], now_s: float) -> tuple[int, float]:
        """Return how many wants may start now, and the wait of the next, in seconds."""
        for granted, want in enumerate(wants):
            wait = self._wait_s(want, now_s)
            if wait > 0 or self._stop:
                return granted, wait
            client.in_flight += 1
            client.tokens += want.tokens
            client.usd += want.worst_usd
            if self._requests:
                self._requests.take(1, now_s)
            if self._tokens:
                charge = want.tokens * self._used / self._estimated
                client.charged_tokens += charge
                self._tokens.take(charge, now_s)
        return len(wants), _LONGEST_WAIT_S

    def _wait_s(self, want: Want, now_s: float) -> float:
        """Return how long a call must wait; 0 if it may start now. May decide to stop."""
        in_flight = self._num_in_flight()
        if self._over_budget(want):
            if in_flight == 0:
                self._stop = self._stop or Stop("budget", self._budget_line(want))
            return self._turn_s(in_flight)
        if in_flight >= self._in_flight.calls:
            return self._turn_s(in_flight)
        wait = max(0.0, self._paused_until_s - now_s)
        if self._requests:
            wait = max(wait, self._requests.wait_s(1, now_s))
        if self._tokens:
            charge = want.tokens * self._used / self._estimated
            wait = max(wait, self._tokens.wait_s(charge, now_s))
        return max(wait, _SHORTEST_WAIT_S * self._num_active) if wait > 0 else 0.0

    def _turn_s(self, in_flight: int) -> float:
        """Return about how long it takes until a call ends somewhere."""
        between = self._in_flight.latency_s / max(1, in_flight)
        return min(_LONGEST_WAIT_S, max(_SHORTEST_WAIT_S, between) * self._num_active)

    def _committed_usd(self) -> float:
        spent = self._limits.already_spent_usd + self._totals.usd + self._totals.usd_at_risk
        return spent + self._lost_usd + sum(client.usd for client in self._clients.values())

    def _over_budget(self, want: Want) -> bool:
        most = self._limits.max_usd
        return most is not None and self._committed_usd() + want.worst_usd > most

    def _reason_to_stop(self, report: Report) -> Stop | None:
        if report.fatal:
            return Stop("breaker", report.fatal)
        most, totals = self._limits.max_retry_share, self._totals
        if totals.num_retries <= max(_FREE_RETRIES, most * totals.num_calls):
            return None
        return Stop(
            "retries",
            f"{totals.num_retries} of {totals.num_calls} calls were retries, more than "
            f"teacher.max_retry_share={most:g} allows: the teacher is down, or the limits in "
            "teacher.* are above its own",
        )

    def _budget_line(self, want: Want) -> str:
        usage = self.usage()
        risk = f", up to ${usage.at_risk_usd:.4g} more on calls that ended without an answer"
        return (
            f"spent ${usage.spent_usd:.4g} of teacher.max_usd=${self._limits.max_usd:.4g}"
            f"{risk if usage.at_risk_usd else ''}, and the next call may cost "
            f"${want.worst_usd:.2g}: raise teacher.max_usd to go on"
        )

    def _num_in_flight(self) -> int:
        return sum(client.in_flight for client in self._clients.values())

    def _sweep(self, now_s: float) -> None:
        """Free what clients hold that are silent for too long; what they paid stays counted."""
        if now_s - self._swept_s < _LONGEST_WAIT_S:
            return
        self._swept_s = now_s
        heard = [now_s - client.heard_s for client in self._clients.values()]
        self._num_active = max(1, sum(silent_s <= _ACTIVE_S for silent_s in heard))
        for client in self._clients.values():
            if client.in_flight and now_s - client.heard_s > self._limits.silence_s:
                client.lost_usd = client.usd
                self._lost_usd += client.usd
                client.in_flight, client.tokens, client.usd = 0, 0, 0.0
                client.charged_tokens = 0.0
