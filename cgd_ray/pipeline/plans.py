"""Generation as Ray Data plans: the only file that puts rows, engines and teachers on a cluster.

    prompt units -> PromptRows -> sampler -> write_drafts --.
                                                             +-> TeacherActor -> counts
    stored draft units -> DraftRows ------------------------'

Every arrow streams, so the teacher works while the engine samples, and Ray Data's back-pressure
bounds what lies between them. Each step commits what it makes before it hands on.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import ray
import ray.data

from cgd_ray.pipeline.desk import Desk, DeskStatus
from cgd_ray.pipeline.rows import DraftRows, DraftSource, PromptRows, PromptSource
from cgd_ray.runtime import use_gpu
from cgd_ray.sampling.attempts import Record as AttemptRecord
from cgd_ray.sampling.processor import sampler
from cgd_ray.sampling.writer import write_drafts
from cgd_ray.settings import Settings
from cgd_ray.teacher.actor import TeacherActor, TeacherPost
from cgd_ray.teacher.governor import Governor, Grant, Report

TEACHER_ROWS_PER_SHARD = 16


class DeskLink:
    """The desk, from any process of the cluster."""

    def __init__(self, governor: Governor) -> None:
        self._desk: Any = ray.remote(num_cpus=0)(Desk).remote(governor)

    def exchange(self, report: Report) -> Awaitable[Grant]:
        """Report calls and ask for more."""
        return self._desk.exchange.remote(report)

    def counter(self, stage: str) -> Callable[[int, int], None]:
        """Return what a stage's workers tell the rows to that they committed: made, failed."""
        return partial(self._count, stage)

    def halt(self, reason: str) -> None:
        """Let no further call start."""
        ray.get(self._desk.halt.remote(reason))

    def status(self) -> DeskStatus:
        """Return what is known now."""
        return ray.get(self._desk.status.remote())

    def _count(self, stage: str, made: int, failed: int) -> None:
        self._desk.count.remote(stage, made, failed)


def draft_plan(
    settings: Settings, source: PromptSource, desk: DeskLink, *, hand_on: bool
) -> ray.data.Dataset:
    """Return a plan that drafts units of prompts; its rows are the teacher's, if it waits."""
    s = settings.sampling
    engine = sampler(
        source.tokenizer,
        s,
        settings.student,
        AttemptRecord(source.root, source.folder, s.max_attempts),
        on_gpu=s.engine == "vllm" and use_gpu(s.accelerator),
    )
    write = partial(
        write_drafts,
        root=source.root,
        folder=source.folder,
        count=desk.counter("drafts"),
        hand_on=hand_on,
    )
    asked = _units(len(source.units)).map_batches(
        PromptRows,
        fn_constructor_args=(source,),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=s.max_replicas),
        num_cpus=0.5,
    )
    return engine(asked).map_batches(
        write, batch_size=s.rows_per_request, batch_format="pyarrow", num_cpus=0.5
    )


def stored_plan(source: DraftSource) -> ray.data.Dataset:
    """Return a plan that reads the drafts that wait for the teacher."""
    return _units(len(source.units)).map_batches(
        DraftRows,
        fn_constructor_args=(source,),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=0.5,
    )


def teacher_plan(rows: ray.data.Dataset, settings: Settings, post: TeacherPost) -> ray.data.Dataset:
    """Return a plan that teaches rows."""
    t = settings.teacher
    return rows.map_batches(
        TeacherActor,
        fn_constructor_args=(t, post),
        batch_size=TEACHER_ROWS_PER_SHARD,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=t.num_actors),
        max_concurrency=max(2, -(-t.max_in_flight // TEACHER_ROWS_PER_SHARD)),
        num_cpus=0.5,
    )


def _units(number: int) -> ray.data.Dataset:
    """Return the numbers of units, a block each: what a lost worker does again."""
    return ray.data.range(number, override_num_blocks=number)
