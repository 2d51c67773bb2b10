"""The head dies, and comes back with what Redis has kept: serving goes on, the job is resumed."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from cgd_ray.pipeline.context import RunContext, open_context
from cgd_ray.pipeline.prompts import read_prompts
from cgd_ray.records import Critique, Draft, Refinement
from cgd_ray.settings import load
from cgd_ray.shards import committed_files, read_records
from tests.nodes.conftest import BUCKET, Surroundings
from tests.support.namespaces import DISK, Machine
from tests.support.ray_machines import Client, RayMachines, private_file, ray_machines, until
from tests.support.redis import redis_binary, redis_server
from tests.support.row_checker import Violations, check_ids

pytestmark = pytest.mark.nodes

REPO = Path(__file__).resolve().parents[2]
RUN_FILE = "jobs/runs/smollm2_135m_cpu.toml"
NUM_TRAIN, PORT, API_KEY = 240, 8000, "a-key-of-this-test"
START_LIMIT_S, JOB_LIMIT_S = 300, 240


@pytest.fixture
def overrides(surroundings: Surroundings) -> list[str]:
    """Drafts by the echo engine: what is served is a real one."""
    return [
        f"run.root={BUCKET}/runs",
        "run.work_dir=.cgd",
        "run.lease_s=10",
        f"teacher.base_url={surroundings.teacher}",
        "teacher.allow_private_address=true",
        "teacher.max_in_flight=4",
        "sampling.engine=echo",
        "sampling.rows_per_request=8",
        f"prompts.num_train={NUM_TRAIN}",
        "prompts.num_test=2",
    ]


@pytest.fixture
def cluster(
    surroundings: Surroundings, overrides: list[str], tmp_path: Path
) -> Iterator[RayMachines]:
    """A cluster whose head keeps its state in a Redis outside of it."""
    if redis_binary() is None:
        pytest.skip("redis-server is not installed")
    machines = ray_machines(surroundings.network, REPO / RUN_FILE, overrides)
    with redis_server(surroundings.network.address, tmp_path / "redis") as redis:
        private_file(machines.head.disk / ".redis" / "password", redis.password)
        # As KubeRay starts a head that has `gcsFaultToleranceOptions`.
        machines.before_head = (
            f"export RAY_REDIS_ADDRESS={redis.address} RAY_external_storage_namespace=cgd",
        )
        machines.head_options = f' --redis-password="$(cat {DISK}/.redis/password)"'
        machines.start_all()
        yield machines


@dataclass
class Clients:
    """Somebody who asks the served student at one machine's address, again and again."""

    machine: Machine
    answers: list[float] = field(default_factory=list)  # seconds that each took
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._ask_on)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask_on(self) -> None:
        while not self._stop.wait(0.3):
            began = time.monotonic()
            problem = ask(self.machine)
            if problem:
                self.failures.append(problem)
            else:
                self.answers.append(time.monotonic() - began)


def ask(machine: Machine) -> str | None:
    """Ask the student at a machine's proxy; return what went wrong, if anything."""
    body = {
        "model": "base",
        "max_tokens": 8,
        "messages": [{"role": "user", "content": "State the final answer: 4 + 3 ="}],
    }
    try:
        response = httpx.post(
            f"http://{machine.address}:{PORT}/v1/chat/completions",
            json=body,
            headers={"Authorization": f"Bearer {API_KEY}"},
            timeout=60,
            trust_env=False,
        )
    except httpx.HTTPError as error:
        return repr(error)
    return None if response.is_success else f"{response.status_code} {response.text[:200]}"


def deploy(cluster: RayMachines) -> Machine:
    """Serve the untrained student as `serve deploy` does; return the machine with the engine."""
    for machine in cluster.network.machines:
        private_file(machine.disk / "api-keys", API_KEY)
    application = {
        "name": "cgd",
        "route_prefix": "/",
        "import_path": "cgd_ray.serving.app:build",
        "args": {
            "run": str(REPO / RUN_FILE),
            "overrides": [
                f"run.root={BUCKET}/runs",
                f"run.work_dir={DISK}/.cgd",
                "serve.host=0.0.0.0",
                f"serve.api_keys_file={DISK}/api-keys",
                'serve.models={"base"="base"}',
            ],
        },
    }
    config = {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": PORT},
        "applications": [application],
    }
    response = httpx.put(
        f"{cluster.address}/api/serve/applications/",
        json=config,
        headers=cluster.authorization,
        timeout=60,
        trust_env=False,
    )
    response.raise_for_status()
    until(lambda: status_of(cluster) in ("RUNNING", "DEPLOY_FAILED"), START_LIMIT_S)
    assert status_of(cluster) == "RUNNING", told_of(cluster).get("message")
    (machine,) = (
        machine
        for machine in cluster.workers
        if any("VLLM::EngineCore" in title for title in machine.titles())
    )
    return machine


def told_of(cluster: RayMachines) -> dict[str, Any]:
    return cluster.ask("/api/serve/applications/")["applications"].get("cgd", {})


def status_of(cluster: RayMachines) -> str:
    try:
        return told_of(cluster).get("status", "")
    except (httpx.HTTPError, ValueError):
        return ""


def test_serving_goes_on_without_the_head_and_the_job_is_resumed(
    cluster: RayMachines, overrides: list[str], tmp_path: Path
) -> None:
    server = deploy(cluster)
    context = open_context(load(REPO / RUN_FILE, overrides))
    client = Client(cluster, tmp_path / "client.log", "generate", RUN_FILE, *overrides)
    try:
        client.until(lambda: num_refined(context) > 0, JOB_LIMIT_S)
        with Clients(server) as clients:
            until(lambda: len(clients.answers) > 3, 60)
            before = num_refined(context)
            assert before < NUM_TRAIN, "in mid-generation"
            began = time.monotonic()
            cluster.head.kill()
            until_away(clients, 15)
            cluster.start(cluster.head)
            until(lambda: len(cluster.alive()) >= 3, START_LIMIT_S, cluster.head.log)
            figures = {"jobs_api_s": time.monotonic() - began}
            until(lambda: status_of(cluster) == "RUNNING", START_LIMIT_S, cluster.head.log)
            figures["serve_control_s"] = time.monotonic() - began
            until(lambda: ask(cluster.head) is None, START_LIMIT_S, cluster.head.log)
            figures["head_proxy_s"] = time.monotonic() - began
            assert client.ended(JOB_LIMIT_S) == 1, client.told[-4000:]
            figures["job_known_dead_s"] = time.monotonic() - began
            resumed = Client(cluster, tmp_path / "resumed.log", "jobs", "resume", client.job)
            try:
                resumed.until(lambda: num_refined(context) > before, JOB_LIMIT_S)
                figures["job_goes_on_s"] = time.monotonic() - began
                assert resumed.ended(JOB_LIMIT_S) == 0, resumed.told[-4000:]
            finally:
                resumed.close()
    finally:
        client.close()
    figures |= {"answers": len(clients.answers), "longest_s": max(clients.answers)}
    print(json.dumps({name: round(value, 1) for name, value in figures.items()}))
    assert clients.failures == []
    check_rows(context)


def until_away(clients: Clients, seconds: float) -> None:
    """Let the head be away for so long, with answers coming all the while."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        count = len(clients.answers)
        until(lambda count=count: len(clients.answers) > count or clients.failures, 60)
        assert clients.failures == []


def num_refined(context: RunContext) -> int:
    files = committed_files(context.store, context.folders.refinements, Refinement)
    return sum(len(file.ids) for file in files)


def check_rows(context: RunContext) -> None:
    wanted = [f"{prompt}/0" for prompt in read_prompts(context, "train")]
    assert len(wanted) == NUM_TRAIN
    folders = context.folders
    total = Violations()
    for folder, kind in (
        (folders.drafts, Draft),
        (folders.refinements, Critique),
        (folders.refinements, Refinement),
    ):
        total += check_ids(wanted, read_records(context.store, folder, kind))
    assert total == Violations()
