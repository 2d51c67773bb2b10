"""What each optimiser step measured, kept in the store so that anyone can watch a run."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from cgd_ray.store import Store

_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """One optimiser step, over all workers."""

    step: int  # from 1
    loss: float  # mean over target tokens, nats
    learning_rate: float
    grad_norm: float  # before clipping
    num_targets: int
    num_tokens: int
    seconds: float


class MetricsWriter:
    """Puts steps into the store, a few seconds' worth at a time."""

    def __init__(self, store: Store, stage_folder: str) -> None:
        self._store = store
        self._folder = f"{stage_folder}/metrics"
        self._waiting: list[StepMetrics] = []
        self._last = time.monotonic()

    def add(self, metrics: StepMetrics) -> None:
        """Take one step's figures."""
        self._waiting.append(metrics)
        if time.monotonic() - self._last >= _EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        if self._waiting:
            lines = "\n".join(json.dumps(asdict(m)) for m in self._waiting)
            # Named by time, so that a resumed run's files come after those it runs again.
            self._store.put(f"{self._folder}/{time.time_ns():020d}.jsonl", lines.encode())
        self._waiting = []
        self._last = time.monotonic()


class MetricsReader:
    """Follows a run; each file, written once, is fetched once."""

    def __init__(self, store: Store, stage_folder: str) -> None:
        self._store = store
        self._folder = f"{stage_folder}/metrics/"
        self._last = ""
        self._steps: dict[int, StepMetrics] = {}

    def read(self) -> list[StepMetrics]:
        """Return the steps so far in order; of a step that was run twice, the later."""
        for entry in self._store.list(self._folder):
            if entry.key > self._last:
                for line in self._store.get(entry.key).decode().split("\n"):
                    metrics = StepMetrics(**json.loads(line))
                    self._steps[metrics.step] = metrics
                self._last = entry.key
        return [self._steps[number] for number in sorted(self._steps)]


def read_metrics(store: Store, stage_folder: str) -> list[StepMetrics]:
    """Return the steps of a run in order; of a step that was run twice, the later."""
    return MetricsReader(store, stage_folder).read()


def tokens_per_second(steps: Sequence[StepMetrics]) -> float:
    """Return all tokens, context included, over the seconds spent in the steps."""
    seconds = sum(m.seconds for m in steps)
    return sum(m.num_tokens for m in steps) / seconds if seconds else 0.0
