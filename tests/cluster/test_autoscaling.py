"""The sampler's pool grows a cluster by GPU nodes and lets them go; a real autoscaler decides."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
import ray.data

from cgd_ray.sampling.attempts import AttemptRecord
from cgd_ray.sampling.echo import EchoFaults
from cgd_ray.sampling.processor import sampler
from cgd_ray.settings import SamplingSettings, StudentSettings
from tests.support.draft_rows import draft_rows
from tests.support.gpu_cluster import NodeWatch, gpu_cluster, nodes

ROWS, ROWS_PER_REQUEST = 120, 4


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with gpu_cluster():
        yield


def wait_until(condition: Callable[[], bool], what: str, limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: {dict(nodes())}"
        time.sleep(0.2)


def test_the_pool_grows_over_gpu_nodes_and_shrinks_when_idle(tmp_path: Path):
    assert not nodes()
    settings = SamplingSettings(
        engine="echo",
        rows_per_request=ROWS_PER_REQUEST,
        max_num_seqs=ROWS_PER_REQUEST,
        min_replicas=1,
        max_replicas=3,
    )
    step = sampler(
        "",
        settings,
        StudentSettings(),
        AttemptRecord(str(tmp_path), "drafts", 3),
        on_gpu=True,
        echo_faults=EchoFaults(delay_s=4.0),  # 60 s of work for one engine
    )
    rows = draft_rows(ROWS)
    blocks = [rows.slice(i, ROWS_PER_REQUEST) for i in range(0, ROWS, ROWS_PER_REQUEST)]
    with NodeWatch() as watch:
        answered = step(ray.data.from_arrow(blocks)).take_all()
    assert sorted(row["draft_seed"] for row in answered) == list(range(ROWS))
    sizes = [seen["gpu"] for seen in watch.seen]
    assert sizes[0] == 0 and max(sizes) == settings.max_replicas
    assert 1 in sizes  # from the smallest pool, not all at once
    wait_until(lambda: nodes()["gpu"] == 0, "GPU nodes stay")


def test_work_without_gpus_adds_no_gpu_node():
    wait_until(lambda: not nodes(), "nodes of the last test stay")

    @ray.remote(num_cpus=16)
    def teach() -> None:
        time.sleep(60)

    with NodeWatch() as watch:
        calls = [teach.remote() for _ in range(3)]  # two fit beside the head
        wait_until(lambda: nodes()["cpu"] == 1, "no CPU node comes")
        for call in calls:
            ray.cancel(call, force=True)
    assert max(seen["gpu"] for seen in watch.seen) == 0
