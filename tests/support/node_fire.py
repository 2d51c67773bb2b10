"""A training whose cluster loses and gains nodes: real raylets, Ray Train, and a tiny student."""

import contextlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from cgd_ray.training.checkpoint import list_checkpoints
from tests.support.train_fire import Driver, World, start_driver, wait_until
from tests.support.workers import run_workers


@dataclass(frozen=True, slots=True)
class ElasticReport:
    """What came of a training whose cluster lost and gained nodes."""

    num_workers: tuple[int, ...]  # that went on, at first and after each change
    loss_difference: float  # from two workers all the time


@dataclass(frozen=True, slots=True)
class ChurnReport:
    """What came of a training whose nodes went at any moment."""

    num_losses: int
    num_lost_starts: int  # losses that Ray Train alone would have ended with
    loss_difference: float  # from two workers all the time


def lose_and_add_nodes(
    world: World, name: str, folder: Path, changes: Sequence[str]
) -> ElasticReport:
    """Train with one or two workers on two nodes; "lose" one and "add" one, in turn."""
    num_epochs = 100 + 100 * len(changes)  # long enough for a restart at each
    with _two_nodes(world, name, folder, num_epochs) as (nodes, driver):
        found = [2]
        for change in changes:
            nodes.lose() if change == "lose" else nodes.add()
            wait_until(lambda: _newest_workers(world, name) == len(nodes.members), driver)
            found.append(_newest_workers(world, name))
        driver.ends(0)
    return ElasticReport(tuple(found), _loss_difference(world, name))


def lose_nodes_at_any_moment(
    world: World, name: str, folder: Path, seed: int, num_losses: int
) -> ChurnReport:
    """Lose nodes and add others without waiting for the workers: in mid-start, too."""
    draw = random.Random(seed)
    with _two_nodes(world, name, folder, 100) as (nodes, driver):
        for _ in range(num_losses):
            nodes.lose()
            driver.runs_on(draw.uniform(0, 6))
            nodes.add()
            driver.runs_on(draw.uniform(0, 14))
        driver.ends(0)
        num_lost = driver.log.read_text(errors="replace").count("a worker was lost as it began")
    return ChurnReport(num_losses, num_lost, _loss_difference(world, name))


@dataclass(frozen=True, slots=True)
class _Nodes:
    cluster: Cluster
    members: list[Any]

    def lose(self) -> None:
        self.cluster.remove_node(self.members.pop(), allow_graceful=False)

    def add(self) -> None:
        self.members.append(self.cluster.add_node(num_cpus=1))


@contextlib.contextmanager
def _two_nodes(
    world: World, name: str, folder: Path, num_epochs: int
) -> Iterator[tuple[_Nodes, Driver]]:
    """Yield two nodes and a training on them that has begun, beside one that nothing disturbed."""
    # At ten times this rate the tiny model learns its rows by heart, and then any rounding grows:
    # one and two undisturbed workers come 0.01 apart.
    settings = {"learning_rate": 1e-4, "zero_stage": 2, "num_epochs": num_epochs}
    settings |= {"checkpoint_every_steps": 4, "max_failures": 20}
    run_workers(world.task(f"steady-{name}", num_workers=2, **settings))
    # Ray notices a lost node some seconds late, and waits this long for it.
    environment = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10"}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        nodes = _Nodes(cluster, [cluster.add_node(num_cpus=1) for _ in range(2)])
        task = world.task(name, num_workers=[1, 2], resize_every_s=2, **settings)
        driver = start_driver(folder, task, RAY_ADDRESS=str(cluster.address), **environment)
        wait_until(lambda: _newest_workers(world, name) == 2, driver)
        yield nodes, driver
    finally:
        cluster.shutdown()


def _loss_difference(world: World, name: str) -> float:
    pairs = zip(world.losses(name), world.losses(f"steady-{name}"), strict=True)
    return max(abs(a - b) for a, b in pairs)


def _newest_workers(world: World, folder: str) -> int:
    return next((c.num_workers for c in list_checkpoints(world.store, folder)), 0)
