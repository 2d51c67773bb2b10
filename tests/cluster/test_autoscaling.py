"""The shipped node types, on a real autoscaler: each stage gets its own nodes and no others."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import ray
import ray.data
from ray.data._internal.datasource.range_datasource import RangeDatasource
from ray.util.placement_group import placement_group, remove_placement_group

from cgd_ray.pipeline.prompts import read_prompts
from cgd_ray.pipeline.run import held, teach
from cgd_ray.pipeline.stages import run_stage
from cgd_ray.records import Refinement
from cgd_ray.runtime import place
from cgd_ray.sampling.attempts import AttemptRecord
from cgd_ray.sampling.echo import EchoFaults
from cgd_ray.sampling.processor import sampler
from cgd_ray.settings import Settings, load
from cgd_ray.shards import commit_shard, read_records
from tests.support.draft_rows import draft_rows
from tests.support.gpu_cluster import NodeWatch, gpu_cluster, nodes
from tests.support.records import draft

REPO = Path(__file__).parents[2]
RUN = "llama31_8b_webinstruct_2n8g"
ROWS, ROWS_PER_REQUEST = 120, 4
PROMPTS = 24


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with gpu_cluster(REPO / "cluster" / RUN / "aws.yaml"):
        yield


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The shipped run, with files and an echo in the places of bucket, engine and teacher."""
    rows = [{"question": f"{n} + {n} =", "answer": str(2 * n)} for n in range(PROMPTS)]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    overrides = {
        "run.root": tmp_path / "store",
        "run.work_dir": tmp_path / "work",
        "prompts.train": path,
        "prompts.test": "reasoning-gym:chain_sum",
        "prompts.num_train": PROMPTS,
        "prompts.num_test": 2,
        "sampling.engine": "echo",
        "sampling.rows_per_request": ROWS_PER_REQUEST,
        "sampling.max_num_seqs": ROWS_PER_REQUEST,
        "sampling.max_replicas": 3,
        "teacher.backend": "echo",
    }
    run_file = REPO / "jobs" / "runs" / f"{RUN}.toml"
    return load(run_file, [f"{name}={value}" for name, value in overrides.items()])


def wait_until(condition: Callable[[], bool], what: str, limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: {dict(nodes())}"
        time.sleep(0.2)


def wait_until_idle() -> None:
    wait_until(lambda: not nodes(), "nodes stay that nothing uses")


def most(watch: NodeWatch) -> Counter[str]:
    """Return the most nodes of each role that were up at once."""
    found: Counter[str] = Counter()
    for seen in watch.seen:
        found |= seen
    return found


def questions() -> ray.data.Dataset:
    """Return rows for the engine, a block for each of its calls, made where rows are made."""
    where = place("rows")
    number = ROWS // ROWS_PER_REQUEST
    blocks = RangeDatasource(n=number, block_format="arrow", column_name="id")

    def rows(batch: pa.Table) -> pa.Table:
        return draft_rows(ROWS).slice(batch["id"][0].as_py() * ROWS_PER_REQUEST, ROWS_PER_REQUEST)

    units = ray.data.read_datasource(blocks, override_num_blocks=number, label_selector=where)
    return units.map_batches(rows, batch_format="pyarrow", num_cpus=0.5, label_selector=where)


def test_drafts_grow_the_sampler_nodes_and_no_others(settings: Settings, tmp_path: Path) -> None:
    assert not nodes()
    step = sampler(
        "",
        settings.sampling,
        settings.student,
        AttemptRecord(str(tmp_path), "drafts", 3),
        on_gpu=True,
        label_selector=place("sampler"),
        echo_faults=EchoFaults(delay_s=4.0),  # 60 s of work for one engine
    )
    with NodeWatch() as watch:
        answered = step(questions()).take_all()
    assert sorted(row["draft_seed"] for row in answered) == list(range(ROWS))
    found = most(watch)
    del found["teacher"]  # a CPU node, for rows that find no room on the head
    assert found == {"sampler": settings.sampling.max_replicas}
    assert 1 in [seen["sampler"] for seen in watch.seen]  # from the smallest pool, not all at once
    wait_until_idle()


def test_the_teachers_calls_add_no_gpu_node(settings: Settings) -> None:
    """All of `cgd teach`: its actors do not even run beside the head, which has CPUs to spare."""
    with held(settings) as ctx:
        run_stage(ctx, "prompts")
        made = [
            replace(draft(), id=f"{prompt}/0", prompt_id=prompt)
            for prompt in read_prompts(ctx, "train")
        ]
        commit_shard(ctx.store, ctx.folders.drafts, made)
        run_stage(ctx, "drafts")
    wait_until_idle()
    with NodeWatch() as watch:
        teach(settings)
    assert most(watch) == {"teacher": 1}
    assert len(read_records(ctx.store, ctx.folders.refinements, Refinement)) == PROMPTS


def test_training_gets_whole_nodes_of_its_own() -> None:
    wait_until_idle()
    workers = placement_group([{"GPU": 1}] * 16, bundle_label_selector=[place("trainer")] * 16)
    with NodeWatch() as watch:
        assert workers.wait(60)
    remove_placement_group(workers)
    assert most(watch) == {"trainer": 2}
