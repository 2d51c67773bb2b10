"""`cgd generate --address` on a real head with token authentication: follow, lose, stop, resume."""

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import ray

from cgd_ray.processes import child, wait_until
from cgd_ray.store import open_store
from tests.support.driver_fire import Job, check
from tests.support.fault_proxy import Fault, FaultProxy, Operation, fault_proxy
from tests.support.job_cluster import JobCluster, job_cluster
from tests.support.row_checker import Violations

REPO = Path(__file__).resolve().parents[2]
PROBLEMS = tuple(f"{n} + {n + 1} - 3 =" for n in range(60))
RUN = """
[run]
name = "submitted"
root = "{folder}/store"
work_dir = "{folder}/work"
[prompts]
train = "{folder}/prompts.jsonl"
test = "reasoning-gym:chain_sum"
num_test = 2
[student]
max_model_len = 256
[sampling]
engine = "echo"
max_tokens = 64
rows_per_request = 8
[teacher]
base_url = "{teacher}"
model = "scripted-1"
allow_private_address = true
max_in_flight = 4
[evaluate]
max_tokens = 64
"""
# What Ray answers without a token: its page, so that a person can type one in, and signs of life.
PUBLIC = {
    "/",
    "/favicon.ico",
    "/api/authentication_mode",
    "/api/authenticate",
    "/api/healthz",
    "/api/gcs_healthz",
    "/api/local_raylet_healthz",
    "/-/healthz",
}
_ROUTE = re.compile(r"(?:routes\.|router\.add_)(get|post|put|delete)\(\s*f?\"(/[^\"]*)\"")


@pytest.fixture(scope="module")
def cluster() -> Iterator[JobCluster]:
    """A head that wants a token."""
    token = secrets.token_hex(32)
    with job_cluster({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}) as running:
        yield running


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    """A run whose teacher takes 0.4 s to answer and logs every call."""
    prompts, run_file = tmp_path / "prompts.jsonl", tmp_path / "run.toml"
    prompts.write_text("".join(json.dumps({"prompt": p, "answer": "0"}) + "\n" for p in PROBLEMS))
    port, calls, log = tmp_path / "port", tmp_path / "calls.jsonl", tmp_path / "teacher.log"
    command = [sys.executable, "-m", "tests.support.logging_teacher"]
    with child([*command, str(port), str(calls), "400"], log) as process:
        wait_until(port.exists, process, "the teacher", log, 60)
        teacher = f"http://127.0.0.1:{port.read_text()}/v1"
        run_file.write_text(RUN.format(folder=tmp_path, teacher=teacher))
        yield Job(run_file, log, calls, open_store(str(tmp_path / "store")), PROBLEMS)


class Client:
    """A `cgd` command, with what it has printed so far."""

    def __init__(self, folder: Path, token: str | None, *words: object) -> None:
        number = len(list(folder.glob("*.out")))
        self._out, self._err = folder / f"{number}.out", folder / f"{number}.err"
        command = [sys.executable, "-m", "cgd_ray.cli", *map(str, words)]
        environment = {**os.environ, "RAY_AUTH_TOKEN": token or ""}
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=err, env=environment, cwd=REPO
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert self.process.poll() is None and time.monotonic() < deadline, self.out + self.err
            time.sleep(0.05)

    def ended(self, status: int) -> "Client":
        assert self.process.wait(180) == status, self.out + self.err
        return self


def test_a_job_is_followed_lost_stopped_and_resumed(
    cluster: JobCluster, job: Job, tmp_path: Path
) -> None:
    began = time.monotonic()
    with fault_proxy(cluster.address) as proxy:

        def cgd(*words: object) -> Client:
            return Client(tmp_path, cluster.token, *words, "--address", proxy.url)

        first = cgd("generate", job.run_file)
        first.until(lambda: "Running entrypoint" in first.out)
        lose_connection(proxy, first)
        first.until(lambda: job.num_calls() > 4)
        first.process.send_signal(signal.SIGINT)
        first.ended(130)
        (name,) = re.findall(r"submitted (submitted-generate-\w+) to", first.err)
        assert f"cgd jobs stop {name} --address {proxy.url}" in first.err
        proxy.plan = answer_lost_once("POST", "/stop")
        stopped = cgd("jobs", "stop", name).ended(0)
        assert "stopped; the same command goes on from here" in stopped.out
        assert log_of(cluster, name).startswith(first.out)
        listed = cgd("jobs", "list").ended(0).out.splitlines()[1:]
        assert [line.split()[:4] for line in listed] == [[name, "generate", "submitted", "stopped"]]
        calls = job.num_calls()
        assert calls < 2 * len(PROBLEMS), "it was stopped in mid-generation"

        proxy.plan = lambda op: Fault("cut_after") if op.number % 5 == 0 else None
        resumed = cgd("jobs", "resume", name).ended(0)
        (again,) = re.findall(r"submitted (submitted-generate-\w+) to", resumed.err)
    assert resumed.out == log_of(cluster, again), "nothing lost, nothing twice"
    assert cluster.token is not None
    for folder in (cluster.folder, tmp_path):
        assert files_with(folder, cluster.token) == []
    assert "lost the connection" in resumed.err
    report = check(job, 0, began)
    assert report.violations == Violations()
    assert report.num_extra_calls == 0, "the calls under way were waited for"
    assert calls < job.num_calls() == 2 * len(PROBLEMS)


def lose_connection(proxy: FaultProxy, client: Client) -> None:
    """Let nothing through until the client has noticed, then all."""
    proxy.plan = lambda _: Fault("cut_before")
    client.until(lambda: "lost the connection" in client.err)
    proxy.plan = lambda _: None
    client.until(lambda: "connected again" in client.err)


def answer_lost_once(method: str, ending: str) -> Callable[[Operation], Fault | None]:
    lost: list[Operation] = []

    def plan(operation: Operation) -> Fault | None:
        if lost or operation.method != method or not operation.target.endswith(ending):
            return None
        lost.append(operation)
        return Fault("cut_after")

    return plan


def files_with(folder: Path, secret: str) -> list[Path]:
    """Return the files that hold a secret."""
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # sockets, and files that a dying process removes
            if path.is_file() and secret.encode() in path.read_bytes():
                found.append(path)
    return found


def log_of(cluster: JobCluster, name: str) -> str:
    return json.loads(cluster.ask(f"/api/jobs/{name}/logs"))["logs"]


def test_the_jobs_are_scripts_for_ray_s_own_command(
    cluster: JobCluster, job: Job, tmp_path: Path
) -> None:
    """`ray job submit --working-dir . -- python jobs/prompts.py RUN.toml`, in a checkout."""
    (tmp_path / "jobs").symlink_to(REPO / "jobs")
    (tmp_path / "cgd_ray").symlink_to(REPO / "cgd_ray")
    ray_program = Path(sys.executable).parent / "ray"
    command = [ray_program, "job", "submit", "--address", cluster.address, "--working-dir", "."]
    done = subprocess.run(
        [*command, "--", "python", "jobs/prompts.py", "run.toml"],
        env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": cluster.token or ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "prompts      62 rows" in done.stdout


def test_without_the_token_only_public_paths_answer(cluster: JobCluster) -> None:
    """Every route in Ray's source, of the head and of the two agents of a node (check 10)."""
    (told,) = json.loads(cluster.ask("/nodes?view=summary"))["data"]["summary"]
    node, host = told["raylet"], told["raylet"]["nodeManagerAddress"]
    source = Path(ray.__file__).parent
    routes = {
        (method.upper(), re.sub(r"\{[^}]*\}", "x", path))
        for file in [*source.rglob("dashboard/**/*.py"), *source.rglob("runtime_env/agent/*.py")]
        for method, path in _ROUTE.findall(file.read_text())
    }
    assert (
        len(routes) > 40
        and {
            ("POST", "/api/jobs/"),
            ("POST", "/api/job_agent/jobs/"),
            ("POST", "/get_or_create_runtime_env"),
        }
        <= routes
    )
    routes |= {("GET", "/logs/x"), ("GET", "/no/such/path"), ("GET", "/api/healthz/../jobs/")}
    agents = (node["dashboardAgentListenPort"], node["runtimeEnvAgentPort"])
    for address in (cluster.address, *(f"http://{host}:{port}" for port in agents)):
        for token in (None, "0" * 64):
            answered = {
                path
                for method, path in sorted(routes)
                if status(address + path, method, token) not in (401, 403)
            }
            assert answered <= PUBLIC, f"{address} with token {token}"
    assert status(f"{cluster.address}/api/version", "GET", cluster.token) == 200


def status(url: str, method: str, token: str | None) -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    body = b"{}" if method in ("POST", "PUT") else None
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def test_without_the_token_ray_s_own_protocol_answers_nothing(cluster: JobCluster) -> None:
    """Past the dashboard: whoever could call these would start drivers, actors and tasks."""
    (told,) = json.loads(cluster.ask("/nodes?view=summary"))["data"]["summary"]
    node, host = told["raylet"], told["raylet"]["nodeManagerAddress"]
    methods = {
        cluster.gcs_address: "InternalKVGcsService/InternalKVGet",
        f"127.0.0.1:{cluster.client_port}": "RayletDriver/KVGet",
        f"{host}:{node['nodeManagerPort']}": "NodeManagerService/GetAgentPIDs",
        f"{host}:{node['objectManagerPort']}": "ObjectManagerService/Pull",
        f"{host}:{node['metricsAgentPort']}": "ReporterService/HealthCheck",
    }
    for address, method in methods.items():
        said = {token: call(address, method, token) for token in (None, "0" * 64, cluster.token)}
        assert said[None] == said["0" * 64] == grpc.StatusCode.UNAUTHENTICATED, (address, said)
        assert said[cluster.token] != grpc.StatusCode.UNAUTHENTICATED, (address, said)


def call(address: str, method: str, token: str | None) -> grpc.StatusCode:
    """Return how a call with an empty message ends."""
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary(f"/ray.rpc.{method}")(
                b"", metadata=metadata, timeout=20, wait_for_ready=True
            )
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK
