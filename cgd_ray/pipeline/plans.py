"""Generation as Ray Data plans: the only file that puts rows, engines and teachers on a cluster.

    prompt units -> PromptRows -> sampler -> write_drafts --.
                                                             +-> TeacherActor -> counts
    stored draft units -> DraftRows ------------------------'

Every arrow streams, so the teacher works while the engine samples, and Ray Data's back-pressure
bounds what lies between them. Each step commits what it makes before it hands on.
"""

from functools import partial

import ray.data
from ray.data._internal.datasource.range_datasource import RangeDatasource

from cgd_ray.pipeline.desk_link import DeskLink
from cgd_ray.pipeline.rows import DraftRows, DraftSource, PromptRows, PromptSource
from cgd_ray.pipeline.units import rows_per_shard
from cgd_ray.runtime import place, use_gpu
from cgd_ray.sampling.attempts import AttemptRecord
from cgd_ray.sampling.processor import sampler
from cgd_ray.sampling.writer import write_drafts
from cgd_ray.settings import Settings
from cgd_ray.teacher.actor import TeacherActor, TeacherPost


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
        label_selector=place("sampler"),
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
        fn_constructor_args=(source, desk.counter("drafts")),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=s.max_replicas),
        num_cpus=0.5,
        label_selector=place("rows"),
    )
    return engine(asked).map_batches(
        write,
        batch_size=s.rows_per_request,
        batch_format="pyarrow",
        num_cpus=0.5,
        label_selector=place("rows"),
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
        label_selector=place("rows"),
    )


def teacher_plan(
    rows: ray.data.Dataset, settings: Settings, post: TeacherPost, num_rows: int
) -> ray.data.Dataset:
    """Return a plan that teaches rows.

    Args:
        rows: of the teacher.
        settings: of the run.
        post: where the actors work.
        num_rows: about how many there are.
    """
    t = settings.teacher
    size = rows_per_shard(num_rows)
    return rows.map_batches(
        TeacherActor,
        fn_constructor_args=(t, post),
        batch_size=size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=t.num_actors),
        # Rows for twice as many chats as may be under way: the last rows of one shard are slow.
        max_concurrency=2 + 4 * t.max_in_flight // size,
        num_cpus=0.5,
        label_selector=place("teacher"),
    )


def _units(number: int) -> ray.data.Dataset:
    """Return the numbers of units, a block each: what a lost worker does again."""
    # `ray.data.range`, which takes no labels: its tasks would keep idle GPU nodes from ending.
    numbers = RangeDatasource(n=number, block_format="arrow", column_name="id")
    return ray.data.read_datasource(
        numbers, override_num_blocks=number, label_selector=place("rows")
    )
