"""The whole run on three machines, two of which die: `cgd run --address`, and no hand's help."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgd_ray.pipeline.context import RunContext, open_context
from cgd_ray.pipeline.prompts import read_prompts
from cgd_ray.records import Critique, Draft, PackedBatch, Record, Refinement, Score
from cgd_ray.settings import load
from cgd_ray.shards import committed_files, read_complete, read_failures, read_records
from cgd_ray.store import Store
from cgd_ray.teacher.critique import build_critique_messages
from cgd_ray.teacher.refinement import build_refinement_messages
from cgd_ray.training.checkpoint import list_checkpoints
from cgd_ray.training.metrics import read_metrics
from cgd_ray.tutor.conversation import answer_chat
from cgd_ray.tutor.wire import ChatMessage
from tests.nodes.conftest import BUCKET, Surroundings
from tests.support.namespaces import Machine
from tests.support.ray_machines import Client, RayMachines, ray_machines, until
from tests.support.row_checker import Violations, check_ids

pytestmark = pytest.mark.nodes

REPO = Path(__file__).resolve().parents[2]
RUN_FILE = "jobs/runs/smollm2_135m_cpu.toml"
NUM_TRAIN, NUM_TEST, STEPS, SAVE_EVERY = 96, 16, 10, 3
STAGE_LIMIT_S = 420


@pytest.fixture
def overrides(surroundings: Surroundings) -> list[str]:
    """The shipped run for CPU machines, made small, with these servers."""
    return [
        f"run.root={BUCKET}/runs",
        "run.work_dir=.cgd",
        f"teacher.base_url={surroundings.teacher}",
        "teacher.allow_private_address=true",
        f"prompts.num_train={NUM_TRAIN}",
        f"prompts.num_test={NUM_TEST}",
        "sampling.max_tokens=64",
        "sampling.max_replicas=1",
        "sampling.rows_per_request=8",
        "sampling.max_num_seqs=4",  # slow enough to be caught at it
        "packing.sequence_length=512",
        f"train.max_steps={STEPS}",
        f"train.checkpoint_every_steps={SAVE_EVERY}",
        "evaluate.max_tokens=64",
    ]


@pytest.fixture
def cluster(surroundings: Surroundings, overrides: list[str]) -> RayMachines:
    machines = ray_machines(surroundings.network, REPO / RUN_FILE, overrides)
    machines.start_all()
    assert len(set(machines.alive())) == 3
    return machines


@pytest.fixture
def context(surroundings: Surroundings, overrides: list[str]) -> RunContext:
    return open_context(load(REPO / RUN_FILE, overrides))


@pytest.fixture
def client(cluster: RayMachines, overrides: list[str], tmp_path: Path) -> Iterator[Client]:
    running = Client(cluster, tmp_path / "client.log", "run", RUN_FILE, *overrides)
    yield running
    running.close()


def test_a_run_outlives_two_of_its_machines(
    cluster: RayMachines, client: Client, context: RunContext
) -> None:
    store, folders = context.store, context.folders
    client.until(lambda: num_committed(store, folders.drafts, Draft) > 0, STAGE_LIMIT_S)
    sampler = machine_with(cluster, "VLLM::EngineCore")
    assert num_committed(store, folders.drafts, Draft) < NUM_TRAIN, "in mid-generation"
    lose(cluster, sampler)

    client.until(lambda: list_checkpoints(store, folders.checkpoint), STAGE_LIMIT_S)
    assert read_complete(store, folders.checkpoint) is None, "in mid-training"
    lose(cluster, machine_with(cluster, "ray::RayTrainWorker"))

    assert client.ended(STAGE_LIMIT_S) == 0, client.told[-4000:]
    assert cluster.ask(f"/api/jobs/{client.job}")["status"] == "SUCCEEDED"
    check_rows(context)
    check_training(store, folders.checkpoint)
    scores = read_records(store, folders.scores, Score)
    assert len(scores) == 2 * NUM_TEST
    assert "significant" in client.told.split("difference")[-1]


def machine_with(cluster: RayMachines, title: str) -> Machine:
    """Return the worker machine that runs a process of this title."""
    found: list[Machine] = []

    def seen() -> bool:
        found[:] = [
            machine
            for machine in cluster.workers
            if any(line.startswith(title) for line in machine.titles())
        ]
        return bool(found)

    until(seen, 60)
    return found[0]


def lose(cluster: RayMachines, machine: Machine) -> None:
    """`kill -9` all of a machine, wait until the cluster knows, and switch it on again."""
    machine.kill()
    until(lambda: machine.address not in cluster.alive(), 120, cluster.head.log)
    cluster.start(machine)
    until(lambda: machine.address in cluster.alive(), 120, machine.log)


def num_committed(store: Store, folder: str, kind: type[Record]) -> int:
    return sum(len(file.ids) for file in committed_files(store, folder, kind))


def check_rows(context: RunContext) -> None:
    """Each prompt has a draft, a critique and a refinement, and each is what it should be."""
    store, folders = context.store, context.folders
    prompts = read_prompts(context, "train")
    assert len(prompts) == NUM_TRAIN
    drafts = read_records(store, folders.drafts, Draft)
    critiques = read_records(store, folders.refinements, Critique)
    refinements = read_records(store, folders.refinements, Refinement)
    wanted = [f"{prompt}/0" for prompt in prompts]
    total = Violations()
    for rows in (drafts, critiques, refinements):
        total += check_ids(wanted, rows)
    total += Violations(
        corrupt=sum(
            critiques[key].text != reply(build_critique_messages(prompts[draft.prompt_id], draft))
            or refinements[key].text
            != reply(build_refinement_messages(prompts[draft.prompt_id], draft, critiques[key]))
            for key, draft in drafts.items()
        )
    )
    assert total == Violations()
    assert not read_failures(store, folders.drafts, drafts)
    assert not read_failures(store, folders.refinements, critiques, refinements)
    packed = read_records(store, folders.examples, PackedBatch).values()
    copies = Counter(name for batch in packed for name in batch.example_ids)
    assert copies and set(copies.values()) == {1}


def reply(messages: list) -> str:
    """Return what the tutor says to a chat; it says the same whenever it is asked."""
    return answer_chat([ChatMessage(**message) for message in messages], "none").text


def check_training(store: Store, folder: str) -> None:
    """Every step once, and none from the beginning twice."""
    steps = read_metrics(store, folder)
    assert [m.step for m in steps] == list(range(1, STEPS + 1))
    lines = [
        json.loads(line)
        for entry in store.list(f"{folder}/metrics/")
        for line in store.get(entry.key).decode().split("\n")
    ]
    taken = Counter(line["step"] for line in lines)
    assert all(taken[step] == 1 for step in range(1, SAVE_EVERY + 1)), taken
    for line in lines:
        assert line["loss"] == steps[line["step"] - 1].loss, "the same step, the same loss"
