"""Training under fire: workers killed at chosen moments, states damaged, workers changed.

Real loop, real DeepSpeed, a tiny real model, worker processes with a gloo group, a real S3 server.
Tests run a seed or two, `make chaos` many.
"""

import atexit
import contextlib
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from safetensors.torch import load

from cgd_ray.records import Checkpoint, PackedBatch
from cgd_ray.settings import TrainSettings
from cgd_ray.shards import commit_shard
from cgd_ray.store import Store
from cgd_ray.training.checkpoint import list_checkpoints
from cgd_ray.training.metrics import read_metrics
from cgd_ray.training.task import TrainTask
from tests.support.tiny_student import tiny_student
from tests.support.workers import Kill, run_workers, start_workers

NUM_ROWS, NUM_STEPS = 8, 6
_LIMIT_S = 180
# Other worker counts add up in another order: what float32 rounding makes of that here.
LOSS_ROUNDING, WEIGHT_ROUNDING = 5e-6, 1e-4
DAMAGES = ("flipped", "truncated", "missing", "empty", "manifest flipped", "manifest truncated")


@dataclass(frozen=True, slots=True)
class World:
    """A student and packed batches in a store."""

    store: Store
    source: Path
    root: str  # as workers open the store: behind the fault proxy, if there is one

    def task(self, folder: str, **settings: Any) -> TrainTask:
        """Return a training of the packed batches; 4 batches a step, 6 steps."""
        defaults = {"batches_per_step": 4, "num_epochs": 3, "learning_rate": 1e-3}
        train = TrainSettings(**{"dtype": "float32", **defaults, **settings})
        return TrainTask(
            train, 1, str(self.source), self.root, "examples", folder, "card", False, 1
        )

    def losses(self, folder: str) -> list[float]:
        """Return the loss of each step."""
        return [m.loss for m in read_metrics(self.store, folder)]

    def differ(self, one: str, other: str) -> "Difference":
        """Return how far apart two trainings ended."""
        losses = np.abs(np.subtract(self.losses(one), self.losses(other))).max()
        a, b = (load(self.store.get(f"{name}/model/model.safetensors")) for name in (one, other))
        assert a.keys() == b.keys()
        weights = max((a[k].double() - b[k].double()).abs().max().item() for k in a)
        return Difference(float(losses), weights)


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest absolute differences between two trainings."""

    loss: float
    weights: float

    @property
    def is_rounding(self) -> bool:
        """Whether the order of float32 sums explains it."""
        return self.loss <= LOSS_ROUNDING and self.weights <= WEIGHT_ROUNDING


NONE = Difference(0.0, 0.0)


def make_world(store: Store, root: str, folder: Path) -> World:
    """Put packed batches into a store and a student into a folder."""
    draw = np.random.default_rng(7)
    rows = []
    for index in range(NUM_ROWS):
        lengths = tuple(int(n) for n in draw.integers(6, 20, 3))
        ids = tuple(int(t) for t in draw.integers(5, 100, sum(lengths)))
        mask = tuple(int(p >= n // 2) for n in lengths for p in range(n))
        rows.append(PackedBatch(index, ("a", "b", "c"), lengths, ids, mask))
    commit_shard(store, "examples", rows)
    return World(store, tiny_student(folder / "student"), root)


@dataclass(frozen=True, slots=True)
class KillReport:
    """What came of a training that was killed and repeated until it was done."""

    zero_stage: int
    kills: tuple[str, ...]
    difference: Difference  # from the training that nobody disturbed
    num_left: int  # objects below the states' folder at the end


def kill_workers(world: World, seed: int) -> KillReport:
    """Kill a worker mid-step, mid-upload, between uploads and manifest, and around the export."""
    draw, stage = random.Random(seed), seed % 4
    whole, killed = f"whole-{seed}", f"killed-{seed}"
    settings = {"num_workers": 2, "zero_stage": stage, "checkpoint_every_steps": 1}
    run_workers(world.task(whole, **settings))
    kills = [
        Kill(draw.randrange(2), "batch", draw.randint(2, 5), draw.random() < 0.5),
        Kill(draw.randrange(2), "upload", draw.randint(1, 4), draw.random() < 0.5),
        Kill(0, "commit", draw.randint(1, 2), draw.random() < 0.5),
    ]
    draw.shuffle(kills)
    kills.append(Kill(0, "export", 1, draw.random() < 0.5))
    for kill in kills:
        ended = start_workers(world.task(killed, **settings), 2, [kill]).wait()
        assert ended[kill.rank].status == -kill.signal, ended[kill.rank].output[-3000:]
    run_workers(world.task(killed, **settings))
    words = tuple(
        f"rank {k.rank} {'after' if k.after else 'before'} {k.place} {k.call}" for k in kills
    )
    num_left = sum(1 for _ in world.store.list(f"{killed}/states/"))
    return KillReport(stage, words, world.differ(killed, whole), num_left)


@dataclass(frozen=True, slots=True)
class DamageReport:
    """What came of resuming beside a damaged state."""

    damage: str
    passed_over: bool  # and said so
    difference: Difference


def damage_newest(world: World, seed: int, damage: str | None = None) -> DamageReport:
    """Damage the newer of two states and resume."""
    draw = random.Random(seed)
    damage = damage or draw.choice(DAMAGES)
    whole, damaged = f"undamaged-{seed}", f"damaged-{seed}-{damage.replace(' ', '-')}"
    task = world.task(damaged, checkpoint_every_steps=2)
    run_workers(task, stop_after_step=4)
    newest, older = list_checkpoints(world.store, damaged)
    assert (newest.step, older.step) == (4, 2)
    spoil(world.store, newest, damage, draw)
    (ended,) = start_workers(task, 1).wait()
    assert ended.status == 0, ended.output[-3000:]
    if not world.losses(whole):
        run_workers(world.task(whole))
    passed = damage.startswith("manifest") or "passed over" in ended.output
    return DamageReport(damage, passed, world.differ(damaged, whole))


def spoil(store: Store, checkpoint: Checkpoint, damage: str, draw: random.Random) -> None:
    """Damage a checkpoint in the store."""
    file = draw.choice(checkpoint.files).name
    key = f"{checkpoint.folder}/{'MANIFEST.json' if 'manifest' in damage else file}"
    data = bytearray(store.get(key))
    if damage == "missing":
        store.delete(key)
        return
    if damage.endswith("flipped"):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(7)
    elif damage.endswith("truncated"):
        del data[draw.randrange(1, len(data)) :]
    else:
        data.clear()
    store.put(key, bytes(data))


@dataclass(frozen=True, slots=True)
class ReshapeReport:
    """What came of going on with other workers and another ZeRO stage, twice."""

    shapes: tuple[tuple[int, int], ...]  # (workers, stage), in turn
    difference: Difference  # from one worker without ZeRO


def reshape(world: World, name: str, shapes: Sequence[tuple[int, int]]) -> ReshapeReport:
    """Train two steps with each shape in turn, and the rest with the last."""
    whole, parts = "one-worker", f"reshaped-{name}"
    if not world.losses(whole):
        run_workers(world.task(whole))
    for number, (workers, stage) in enumerate(shapes):
        task = world.task(parts, num_workers=workers, zero_stage=stage, checkpoint_every_steps=2)
        last = number == len(shapes) - 1
        run_workers(task, stop_after_step=None if last else 2)
    return ReshapeReport(tuple(shapes), world.differ(parts, whole))


@dataclass(frozen=True, slots=True)
class RayReport:
    """What came of trainings on Ray whose parts were killed or told to stop."""

    ends: tuple[str, ...]  # what happened, in turn
    difference: Difference


def disturb_ray(world: World, seed: int, folder: Path) -> RayReport:
    """Kill a rank, kill the driver, stop it and a rank politely; repeat the command to the end."""
    draw = random.Random(seed)
    calm, disturbed = f"calm-{seed}", f"disturbed-{seed}"
    settings = {"num_workers": 2, "zero_stage": seed % 4, "num_epochs": 400}
    settings["checkpoint_every_steps"] = 4
    run_workers(world.task(calm, **settings))
    task = world.task(disturbed, **settings)
    ends = ["driver SIGKILL", "driver SIGINT", "rank SIGKILL", "rank SIGTERM"]
    draw.shuffle(ends)
    driver = None
    for number, end in enumerate(ends):
        who, name = end.split()
        if driver is None:
            driver = start_driver(folder / str(number), task)
            # Workers of a killed driver go on for a moment: these states are not this one's.
            driver.wait_for_ranks()
        wait_for_state(world, task, _newest_step(world, task) + draw.randint(1, 8), driver)
        if who == "rank":
            driver.kill_a_rank(draw, signal.Signals[name])
            continue
        driver.process.send_signal(signal.Signals[name])
        driver.ends(-signal.SIGKILL if name == "SIGKILL" else 130)
        driver = None
    driver = driver or start_driver(folder / "last", task)
    driver.ends(0)
    return RayReport(tuple(ends), world.differ(disturbed, calm))


@dataclass(frozen=True, slots=True)
class TrainReport:
    """All that one seed does to training."""

    killed: KillReport
    damaged: tuple[DamageReport, ...]
    reshaped: ReshapeReport
    ray: RayReport

    @property
    def kept(self) -> bool:
        """Whether every promise was."""
        exact = [self.killed.difference, self.ray.difference, *(d.difference for d in self.damaged)]
        return (
            all(difference == NONE for difference in exact)
            and all(d.passed_over for d in self.damaged)
            and self.killed.num_left == 0
            and self.reshaped.difference.is_rounding
        )


def everything(world: World, seed: int, folder: Path) -> TrainReport:
    """Do all of the above to one world."""
    draw = random.Random(seed)
    shapes = [(draw.choice((1, 2)), draw.randrange(4)) for _ in range(3)]
    return TrainReport(
        kill_workers(world, seed),
        tuple(damage_newest(world, seed, damage) for damage in DAMAGES),
        reshape(world, f"at-{seed}", shapes),
        disturb_ray(world, seed, folder),
    )


@dataclass(frozen=True, slots=True)
class Driver:
    """A process that trains on Ray."""

    process: subprocess.Popen[bytes]
    log: Path

    def ends(self, status: int) -> None:
        """Wait for the end and check its status."""
        ended = self.process.wait(_LIMIT_S)
        assert ended == status, f"status {ended}; {self.log.read_text()[-30_000:]}"

    def runs_on(self, seconds: float) -> None:
        """Let time pass in which it must not end before the training does."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert self.process.wait(seconds) == 0, self.log.read_text()[-30_000:]

    def kill_a_rank(self, draw: random.Random, number: int = signal.SIGKILL) -> None:
        """Send a signal to one of the training's workers, once there are any."""
        self.wait_for_ranks()
        with contextlib.suppress(psutil.NoSuchProcess):
            draw.choice(self._ranks()).send_signal(number)

    def wait_for_ranks(self) -> None:
        """Wait until the training has workers."""
        wait_until(lambda: bool(self._ranks()), self)

    def _ranks(self) -> list[psutil.Process]:
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "RayTrainWorker" in " ".join(process.cmdline()):
                    found.append(process)
        return sorted(found, key=lambda process: process.pid)


def start_driver(folder: Path, task: TrainTask, **environment: str) -> Driver:
    """Start a driver in the background; it may work in a folder that another left."""
    folder.mkdir(parents=True, exist_ok=True)
    path, log = folder / "task.pickle", folder / "driver.log"
    path.write_bytes(pickle.dumps(task))
    command = [sys.executable, "-m", "tests.support.train_driver", str(path), str(folder)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, **environment}
        )
    atexit.register(process.kill)  # in case a test ends before it does
    return Driver(process, log)


def wait_for_state(world: World, task: TrainTask, step: int, driver: Driver) -> None:
    """Wait until the state after a step, or a later one, is in the store."""
    wait_until(lambda: _newest_step(world, task) >= step, driver)


def wait_until(ready: Callable[[], bool], driver: Driver) -> None:
    """Wait for a condition while a driver runs."""
    deadline = time.monotonic() + _LIMIT_S
    while not ready():
        status = driver.process.poll()
        assert status is None, f"status {status}; {driver.log.read_text()[-30_000:]}"
        assert time.monotonic() < deadline, driver.log.read_text()[-30_000:]
        time.sleep(0.02)


def _newest_step(world: World, task: TrainTask) -> int:
    return max((c.step for c in list_checkpoints(world.store, task.folder)), default=0)
