"""How fast, and how many at once: the two limits on teacher calls, as functions of the time.

Neither reads a clock: every method takes `now_s`, in seconds of any steady clock.
"""

import math
from dataclasses import dataclass

_SLACK_SHARE = 0.015  # of a window: how unevenly requests may travel to the server
_BURST_SHARE = 0.01  # of a window: how late a call may start without losing its turn
_SHORTEST_BURST_S = 0.05
_SLOTS = 200  # of a window: what is remembered is this exact


class RateLimit:
    """So many units a window (a minute, as a rule), whichever way the server counts.

    Two rules at once. A pace, so that a server that refills steadily sees no burst; and a sum over
    the last window, so that no window of the server, fixed or sliding, ever holds more than the
    limit. Units are requests or tokens.

    Args:
        limit: units that the server allows in a window.
        window_s: length of the window, in seconds.
    """

    def __init__(self, limit: float, window_s: float) -> None:
        self._limit = limit
        self._span_s = window_s * (1 + _SLACK_SHARE)
        self._unit_s = self._span_s / limit
        self._burst_s = max(window_s * _BURST_SHARE, _SHORTEST_BURST_S)
        self._slot_s = window_s / _SLOTS
        self._paced_until_s = -math.inf
        self._slots: dict[int, float] = {}  # units by the time of their start, oldest first
        self._used = 0.0

    def wait_s(self, units: float, now_s: float) -> float:
        """Return how long a call of so many units must wait; 0 if it may start now."""
        self._forget(now_s)
        wait = max(0.0, self._paced_until_s - self._burst_s - now_s)
        left = self._used
        for slot, used in self._slots.items():
            # A call above the whole limit goes alone: the server has the last word on it.
            if left + units <= self._limit or left <= 0:
                break
            wait = max(wait, self._forgotten_s(slot) - now_s)
            left -= used
        return wait

    def take(self, units: float, now_s: float) -> None:
        """Count a call that starts now."""
        self._paced_until_s = max(self._paced_until_s, now_s) + units * self._unit_s
        self._add(math.floor(now_s / self._slot_s), units)

    def correct(self, units: float, started_s: float) -> None:
        """Count what a call used beyond its estimate (or less: negative), as of its start."""
        self._paced_until_s += units * self._unit_s
        slot = math.floor(started_s / self._slot_s)
        if self._slots:
            self._add(slot if slot in self._slots else next(iter(self._slots)), units)

    def _add(self, slot: int, units: float) -> None:
        self._slots[slot] = self._slots.get(slot, 0.0) + units
        self._used += units

    def _forget(self, now_s: float) -> None:
        while self._slots and self._forgotten_s(oldest := next(iter(self._slots))) <= now_s:
            self._used -= self._slots.pop(oldest)
        if not self._slots:
            self._used = 0.0  # no rest of the rounding

    def _forgotten_s(self, slot: int) -> float:
        return (slot + 1) * self._slot_s + self._span_s


_FIRST_IN_FLIGHT = 16
_FIRST_SHARE = 1 / 4  # of the cap, where that is more
_FIRST_ROUND = 16  # answers
_ROUND = 4  # times the limit, in answers: its mean and its throughput vary little
_SHORTEST_ROUND = 64  # answers
_FIRST_PATIENCE = 4  # rounds after a trial in vain; doubles with each
_LONGEST_PATIENCE = 64
_HIGH_LATENCY = 1.5  # times the floor: calls may be queueing
_BUSY_SHARE = 0.8  # of the limit: it is what holds calls back
_WORTH_A_TRIAL = 0.95  # of the limit: a smaller step would not be seen
_ROOM = 1.25  # times the calls that the server is seen to work on at once
_SAME_THROUGHPUT = 0.93  # of the earlier one
_OVERLOAD_CUT = 0.7
_GROWTH = 0.05  # of the limit a round trip, at least one call
_FAST_GROWTH = 3.0  # calls an answer, until the first sign of a limit


@dataclass(frozen=True, slots=True)
class _Trial:
    """The state before the limit was lowered to see whether calls were only queueing."""

    limit: float
    answers_a_second: float
    latency_s: float


class InFlightLimit:
    """How many calls may be under way at once, learnt from how the server answers.

    It starts low, grows fast to the cap, and is cut when the server says that it is overloaded. A
    server that only queues is told from one that works harder by trial: when latency rises far
    above the lowest seen, the limit falls to what the server is seen to work on at once
    (throughput times lowest latency). If throughput stays, calls were only queueing, and the lower
    limit stays; if not, the old limit returns, and the next trial comes later each time.

    Args:
        cap: calls at once that are never passed.
    """

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._limit = min(float(cap), max(_FIRST_IN_FLIGHT, cap * _FIRST_SHARE))
        self._fast = True
        self._floor_s = math.inf
        self._trial: _Trial | None = None
        self._settled_s = -math.inf
        self._last_cut_s = -math.inf
        self._latency_s = 0.0  # mean of the last round
        self._patience, self._rounds_to_wait = _FIRST_PATIENCE, 0
        self._start_round()

    @property
    def calls(self) -> int:
        """The limit, in calls."""
        return int(self._limit)

    @property
    def latency_s(self) -> float:
        """Mean latency of the last round of answers; 0 before there is one."""
        return self._latency_s

    def observe(self, num_answers: int, latency_s: float, in_flight: int, now_s: float) -> None:
        """Learn from the answers since the last call.

        Args:
            num_answers: that came.
            latency_s: sum of their latencies.
            in_flight: calls under way now.
            now_s: the time.
        """
        if now_s < self._settled_s or not (in_flight or num_answers):
            self._start_round()
            return
        if math.isinf(self._round_start_s):
            # A round runs from one arrival to another, as answers may come in waves; but not the
            # first, of which latency alone counts.
            if num_answers or math.isinf(self._floor_s):
                self._round_start_s = now_s
            return
        busy = in_flight >= _BUSY_SHARE * self.calls
        self._round_answers += num_answers
        self._round_latency_s += latency_s
        self._round_busy_looks += busy
        self._round_looks += 1
        if busy and self._trial is None and math.isfinite(self._floor_s):
            self._grow(num_answers)
        if num_answers and self._round_answers >= self._answers_a_round():
            self._end_round(self._round_latency_s / self._round_answers, now_s)

    def overloaded(self, in_flight: int, now_s: float) -> None:
        """Cut the limit: the server refused calls or let them time out. Once a round trip."""
        if now_s - self._last_cut_s < max(1.0, self._latency_s):
            return
        self._last_cut_s = now_s
        self._fast, self._trial = False, None
        self._limit = max(1.0, _OVERLOAD_CUT * min(self._limit, in_flight + 1))

    def _answers_a_round(self) -> float:
        if math.isinf(self._floor_s):
            return _FIRST_ROUND
        return max(_SHORTEST_ROUND, _ROUND * self._limit)

    def _grow(self, num_answers: int) -> None:
        slow = max(1.0, _GROWTH * self._limit) / self._limit
        self._limit += num_answers * (_FAST_GROWTH if self._fast else slow)
        self._limit = min(float(self._cap), self._limit)

    def _end_round(self, latency_s: float, now_s: float) -> None:
        throughput = self._round_answers / max(1e-6, now_s - self._round_start_s)
        self._latency_s = latency_s
        trial, self._trial = self._trial, None
        if trial and throughput < _SAME_THROUGHPUT * trial.answers_a_second:
            self._limit = trial.limit
            self._floor_s = math.sqrt(self._floor_s * trial.latency_s)  # it was taken too low
            self._rounds_to_wait = self._patience
            self._patience = min(_LONGEST_PATIENCE, 2 * self._patience)
            self._settle(latency_s, now_s)
            return
        self._patience = _FIRST_PATIENCE if trial else self._patience
        self._rounds_to_wait -= 1
        target = max(1.0, _ROOM * throughput * self._floor_s)
        high = latency_s > _HIGH_LATENCY * self._floor_s
        busy = self._round_busy_looks >= _BUSY_SHARE * self._round_looks
        if self._rounds_to_wait <= 0 and high and busy and target < _WORTH_A_TRIAL * self._limit:
            self._trial = _Trial(self._limit, throughput, latency_s)
            self._limit, self._fast = target, False
            self._settle(latency_s, now_s)
            return
        self._floor_s = min(self._floor_s, latency_s)
        self._start_round()
        self._round_start_s = now_s

    def _settle(self, latency_s: float, now_s: float) -> None:
        # Calls that began under the old limit tell nothing about the new one.
        self._settled_s = now_s + latency_s
        self._start_round()

    def _start_round(self) -> None:
        self._round_start_s = math.inf
        self._round_answers, self._round_looks, self._round_busy_looks = 0, 0, 0
        self._round_latency_s = 0.0
