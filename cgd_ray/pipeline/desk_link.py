"""The desk as a Ray actor: apart from the plans, so that teachers' workers load no engine."""

from collections.abc import Awaitable
from functools import partial
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cgd_ray.pipeline.desk import Desk, DeskStatus
from cgd_ray.sampling.writer import Count
from cgd_ray.teacher.governor import Governor, Grant, Report


class DeskLink:
    """The desk, from any process of the cluster."""

    def __init__(self, governor: Governor) -> None:
        # Beside the driver, whose loss ends the stage anyway: any other node may go.
        node = ray.get_runtime_context().get_node_id()
        here: Any = NodeAffinitySchedulingStrategy(node, soft=False)  # Ray's own types lack it
        actor = ray.remote(num_cpus=0, scheduling_strategy=here)(Desk)
        self._desk: Any = actor.remote(governor)

    def exchange(self, report: Report) -> Awaitable[Grant]:
        """Report calls and ask for more."""
        return self._desk.exchange.remote(report)

    def counter(self, stage: str) -> Count:
        """Return what a stage's workers tell the rows to that they committed."""
        return partial(self._count, stage)

    def halt(self, reason: str) -> None:
        """Let no further call start."""
        ray.get(self._desk.halt.remote(reason))

    def status(self) -> DeskStatus:
        """Return what is known now."""
        return ray.get(self._desk.status.remote())

    def _count(
        self,
        stage: str,
        made: int,
        failed: int,
        prompt_tokens: int = 0,
        generated_tokens: int = 0,
    ) -> None:
        self._desk.count.remote(stage, made, failed, prompt_tokens, generated_tokens)
