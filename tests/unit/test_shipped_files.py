"""Files that users start from: jobs and run files are accepted as they are."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from cgd_ray.verbs import VERBS

REPO = Path(__file__).resolve().parents[2]
RUNS = sorted((REPO / "jobs" / "runs").glob("*.toml"))


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, cwd=REPO, timeout=60
    )


@pytest.mark.parametrize("verb", [name for name, verb in VERBS.items() if verb.job])
def test_every_working_verb_is_a_job_that_explains_itself_without_starting_anything(verb):
    start = time.process_time()
    done = run(f"jobs/{verb}.py", "jobs/runs/demo.toml", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "256 training, 128 test" in done.stdout
    assert time.process_time() - start < 2


@pytest.mark.parametrize("path", RUNS, ids=lambda p: p.stem)
def test_every_run_file_is_accepted(path):
    done = run("-m", "cgd_ray.cli", "run", path, "--dry-run")
    assert done.returncode == 0, done.stderr


def test_the_paper_recipe_takes_the_paper_number_of_steps():
    recipe = "jobs/runs/llama31_8b_webinstruct_2n8g.toml"
    done = run("-m", "cgd_ray.cli", "run", recipe, "--dry-run")
    assert "1,563" in done.stdout  # 100,000 prompts / batch 64, one epoch
    assert "16 workers x 4" in done.stdout


def test_dry_run_loads_no_heavy_library():
    code = (
        "import sys; from cgd_ray.cli import main; main(['run', 'jobs/runs/demo.toml', "
        "'--dry-run']); heavy = {'ray', 'torch', 'vllm', 'boto3', 'transformers', 'deepspeed'}; "
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
