"""A teacher's key goes to the teacher and nowhere else (reliability: check 9)."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgd_ray.processes import child, wait_until
from cgd_ray.records import Refinement
from cgd_ray.settings import load
from cgd_ray.shards import read_records
from cgd_ray.store import open_store
from tests.support.job_cluster import JobCluster, job_cluster

REPO = Path(__file__).resolve().parents[2]
JOB = REPO / "jobs" / "generate.py"
CANARY = "sk-canary-5f2e81c09d7a"
RUN = """
[run]
name = "canary"
root = "{folder}/store"
work_dir = "{folder}/work"
[prompts]
train = "reasoning-gym:chain_sum"
num_train = 12
num_test = 2
options = {{ min_terms = 2, max_terms = 2, min_digits = 1, max_digits = 1 }}
[student]
max_model_len = 256
[sampling]
engine = "echo"
max_tokens = 64
[teacher]
base_url = "{teacher}"
model = "tutor"
allow_private_address = true
{key}
[evaluate]
max_tokens = 64
"""


@pytest.fixture
def guarded_teacher(tmp_path: Path) -> Iterator[str]:
    """A teacher that answers only to the canary."""
    port, key = tmp_path / "port", tmp_path / "secret" / "key"
    key.parent.mkdir()
    key.write_text(CANARY)
    command = [sys.executable, "-m", "cgd_ray.tutor", "--port-file", str(port)]
    log = tmp_path / "tutor.log"
    with child([*command, "--api-key-file", str(key)], log) as process:
        wait_until(port.exists, process, "the tutor", log, 60)
        yield f"http://127.0.0.1:{port.read_text().strip()}/v1"


def holders(*folders: Path) -> list[Path]:
    """Return the files that hold the canary, whole or as JSON or a URL would spell it."""
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and "secret" not in path.parts and CANARY.encode() in read(path):
                found.append(path)
    return found


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # sockets, and files that a dying process removes
        return b""


def cgd(cluster: JobCluster, run_file: Path) -> str:
    """Submit by `cgd`, from a machine that has the key in its environment; return how it ended."""
    command = [sys.executable, "-m", "cgd_ray.cli", "generate", str(run_file)]
    done = subprocess.run(
        [*command, "--address", cluster.address],
        env={**os.environ, "CANARY_KEY": CANARY},
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    (run_file.parent / "client.log").write_text(done.stdout + done.stderr)
    return {0: "SUCCEEDED", 2: "FAILED"}[done.returncode]


def test_the_key_of_a_submitted_job_is_nowhere(tmp_path: Path, guarded_teacher: str) -> None:
    keys = {
        "file": f'api_key_file = "{tmp_path}/secret/key"',
        "variable": 'api_key_env = "CANARY_KEY"',
        "wrong": 'api_key_env = "WRONG_KEY"',
    }
    environment = {"CANARY_KEY": CANARY, "WRONG_KEY": CANARY + "-not"}
    with job_cluster(environment) as cluster:
        ended = {}
        for name, key in keys.items():
            folder = tmp_path / name
            folder.mkdir()
            run_file = folder / "run.toml"
            run_file.write_text(RUN.format(folder=folder, teacher=guarded_teacher, key=key))
            if name == "variable":
                ended[name] = cgd(cluster, run_file)
            else:
                ended[name] = cluster.submit(sys.executable, JOB, run_file)
        jobs = cluster.ask("/api/jobs/")
        logs = [cluster.ask(f"/api/jobs/{j['submission_id']}/logs") for j in json.loads(jobs)]
        assert ended == {"file": "SUCCEEDED", "variable": "SUCCEEDED", "wrong": "FAILED"}
        assert any("answers 401 to the key from $WRONG_KEY" in log for log in logs)
        assert not any(CANARY in text for text in [jobs, *logs])
        assert holders(cluster.folder, tmp_path) == []
        # The search does find what is there.
        (tmp_path / "file" / "planted").write_text(json.dumps({"key": CANARY}))
        assert [path.name for path in holders(tmp_path)] == ["planted"]
    for name in ("file", "variable"):
        settings = load(tmp_path / name / "run.toml")
        store = open_store(settings.run.root)
        (folder,) = {e.key.split("/")[0] for e in store.list("refinements-")}
        assert len(read_records(store, folder, Refinement)) == 12
