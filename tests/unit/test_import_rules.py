"""ruff really keeps the cluster, the engines and the store in the files that pyproject lists."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("ruff")

REPO = Path(__file__).parents[2]
INSIDE = "def f() -> None:\n    import {0}\n\n    print({0})\n"
OUTSIDE = "import {0}\n\nprint({0})\n"
FROM = "from {0} import x\n\nprint(x)\n"
PACKAGES = ("ray", "vllm", "deepspeed", "boto3", "botocore")


def codes(filename: str, source: str) -> list[str]:
    """Return the rules that a file of that name and content would break, by our configuration."""
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise"]
    done = subprocess.run(
        [*command, "--stdin-filename", filename, "-"],
        input=f'"""A file."""\n\n{source}',
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.strip() in ("", "Found 1 error.", "All checks passed!"), done.stderr
    return [line.split()[1] for line in done.stdout.splitlines() if line.startswith(filename)]


def allowed() -> set[str]:
    """Return the package's files that may break the rule, as pyproject lists them."""
    config = tomllib.loads((REPO / "pyproject.toml").read_text())
    ignores = config["tool"]["ruff"]["lint"]["per-file-ignores"]
    return {path for path, rules in ignores.items() if "TID251" in rules}


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("source", [OUTSIDE, INSIDE, FROM])
def test_a_banned_import_is_found(package: str, source: str) -> None:
    assert "TID251" in codes("cgd_ray/teacher/new_file.py", source.format(package))


def test_a_part_of_a_banned_package_is_found() -> None:
    for line in ("import ray.data", "from ray.serve import run", "import vllm.engine"):
        assert "TID251" in codes("cgd_ray/examples/new_file.py", f"{line}\n")


def test_names_that_only_begin_alike_are_free() -> None:
    for line in ("import raylib", "from cgd_ray import errors", "import boto"):
        assert "TID251" not in codes("cgd_ray/examples/new_file.py", f"{line}\n")


def test_the_listed_files_may() -> None:
    assert "cgd_ray/store/s3.py" in allowed()
    assert "TID251" not in codes("cgd_ray/store/s3.py", OUTSIDE.format("boto3"))


def test_the_list_is_of_single_files_that_exist() -> None:
    ours = {path for path in allowed() if path.startswith("cgd_ray/")}
    assert all("*" not in path and (REPO / path).is_file() for path in ours)
    files = [p for p in (REPO / "cgd_ray").rglob("*.py") if p.name != "__init__.py"]
    assert len(ours) <= 0.15 * len(files), "the cluster is spreading through the package"


def test_units_tests_may_not_import_the_cluster() -> None:
    assert "TID251" in codes("tests/unit/test_new.py", OUTSIDE.format("ray"))
