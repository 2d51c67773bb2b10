"""`cgd status` beside a process that is at work on the run's own S3 server."""

import json
import subprocess
import sys
from pathlib import Path

RUN = """
[run]
name = "watched"
root = "s3://watched/runs"
work_dir = "{folder}/work"
[local]
s3_server = true
[prompts]
train = "reasoning-gym:chain_sum"
num_train = 6
num_test = 2
"""
WORK = """
import sys
from cgd_ray.pipeline.prompts import make_prompts
from cgd_ray.pipeline.run import held
from cgd_ray.settings import load
with held(load(sys.argv[1])) as ctx:
    make_prompts(ctx)
    print("at work", flush=True)
    sys.stdin.read()
"""


def told(run_file: Path) -> dict:
    command = [sys.executable, "-m", "cgd_ray.cli", "status", str(run_file), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_run_at_work_is_read_through_its_own_server(tmp_path: Path) -> None:
    run_file = tmp_path / "run.toml"
    run_file.write_text(RUN.format(folder=tmp_path))
    command = [sys.executable, "-c", WORK, str(run_file)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as process:
        try:
            assert process.stdout.readline() == "at work\n"
            during = told(run_file)
            assert process.poll() is None
        finally:
            process.stdin.close()
    after = told(run_file)
    assert process.returncode == 0
    prompts = during["stages"][0]
    assert (prompts["name"], prompts["state"], prompts["done"]) == ("prompts", "at work", 8)
    assert (during["owner"]["state"], during["owner"]["process"]) == ("alive", process.pid)
    assert during["next_verb"] is None
    assert (after["owner"]["state"], after["stages"][0]["state"]) == ("gone", "begun")
    assert after["next_verb"] == "run"
