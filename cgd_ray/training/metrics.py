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
    padding_share: float = 0.0  # places that hold no token, were all rows as long as the longest
    data_wait_s: float = 0.0  # seconds in which a worker waited for data, their mean
    num_fetched: int = 0  # shard files asked of the store
    mfu: float | None = None  # model FLOPs utilisation; None: the device's peak is not known
    peak_memory_gib: float = 0.0  # of rank 0 so far: its GPU's, on a CPU its process's


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


def read_recent(store: Store, stage_folder: str, num_files: int) -> list[StepMetrics]:
    """Return the steps in the newest files, a few seconds each, in the order they were taken."""
    keys = [entry.key for entry in store.list(f"{stage_folder}/metrics/")][-num_files:]
    files = [store.get(key).decode().split("\n") for key in keys]
    return [StepMetrics(**json.loads(line)) for lines in files for line in lines]


def progress_note(steps: Sequence[StepMetrics]) -> str:
    """Return what a progress line says of a run that has taken steps."""
    last, seconds = steps[-1], sum(m.seconds for m in steps) or 1.0
    targets = sum(m.num_targets for m in steps) / seconds
    note = f"loss {last.loss:.3f}  {tokens_per_second(steps):.0f} tokens/s, {targets:.0f} targets/s"
    if last.mfu is not None:
        note += f"  MFU {last.mfu:.1%}"
    waiting = sum(m.data_wait_s for m in steps) / seconds
    return f"{note}  waits for data {waiting:.0%}" if waiting >= 0.01 else note


def tokens_per_second(steps: Sequence[StepMetrics]) -> float:
    """Return all tokens, context included, over the seconds spent in the steps."""
    seconds = sum(m.seconds for m in steps)
    return sum(m.num_tokens for m in steps) / seconds if seconds else 0.0
