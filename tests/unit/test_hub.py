"""Data sets of the hub, over real HTTP; a process of its own, as HF_ENDPOINT is read at import."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cgd_ray.errors import UserError
from cgd_ray.prompts.hub import HubSource, hub_rows, hub_version, parse_hub
from tests.support.scripted_hub import COMMIT, scripted_hub

_READ = """
import json, sys
from cgd_ray.errors import UserError
from cgd_ray.prompts.hub import hub_rows, hub_version

said = []
for location in sys.argv[1:]:
    try:
        rows = [[r.where, r.values] for r in hub_rows(location, "prompts.train")]
        said.append([hub_version(location, "prompts.train"), rows])
    except UserError as error:
        said.append(str(error))
print(json.dumps(said))
"""


def read(
    endpoint: str, home: Path, *locations: str, offline: bool = False
) -> list[list[object] | str]:
    known = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": str(int(offline))}
    run = subprocess.run(
        [sys.executable, "-c", _READ, *locations],
        env={**os.environ, **known},
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_a_data_set_of_the_hub_is_read_and_kept(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    with scripted_hub() as address:
        train, test, split, none = read(
            address,
            tmp_path,
            "hf:me/sums",
            "hf:me/sums?split=test&config=default&revision=main",
            "hf:me/sums?split=dev",
            "hf:me/none",
        )
    assert train == [
        COMMIT,
        [
            ["me/sums:1", {"prompt": "1+1", "answer": "2"}],
            ["me/sums:2", {"prompt": "2+2", "answer": "4"}],
        ],
    ]
    assert test == [COMMIT, [["me/sums:1", {"prompt": "3+3", "answer": "6"}]]]
    assert 'cannot be loaded: Unknown split "dev"' in split
    assert "prompts.train=hf:me/none: the hub does not tell its commit (404" in none
    (away,) = read(address, tmp_path, "hf:me/sums")
    assert "the hub does not tell its commit" in away
    assert "HF_ENDPOINT" in away
    (kept,) = read(address, tmp_path, f"hf:me/sums?revision={COMMIT}", offline=True)
    assert kept == train


@pytest.mark.parametrize(
    ("location", "source"),
    [
        ("hf:squad", HubSource("squad", None, "train", None)),
        ("hf:a/b.c?config=x y&split=dev", HubSource("a/b.c", "x y", "dev", None)),
        ("hf:a/b?revision=v1.0&split=train[:10%]", HubSource("a/b", None, "train[:10%]", "v1.0")),
    ],
)
def test_a_location_names_its_parts(location: str, source: HubSource) -> None:
    assert parse_hub(location, "prompts.train") == source


def test_the_split_is_the_settings_own() -> None:
    assert parse_hub("hf:a/b", "prompts.test").split == "test"
    assert parse_hub("hf:a/b", "prompts.decontaminate").split == "test"


@pytest.mark.parametrize("location", ["hf:", "hf:a/b/c", "hf:../x", "hf:a/b?part=1", "hf:a b"])
def test_a_malformed_location_is_named(location: str) -> None:
    with pytest.raises(UserError, match=r"is not of the form hf:owner/name\?config=") as raised:
        parse_hub(location, "prompts.train")
    assert f"prompts.train={location}" in str(raised.value)


def test_a_commit_needs_no_hub() -> None:
    assert hub_version(f"hf:me/sums?revision={COMMIT}", "prompts.train") == COMMIT


def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        UserError, match=r"needs the package datasets: pip install 'cgd_ray\[hub\]'"
    ):
        next(hub_rows(f"hf:me/sums?revision={COMMIT}", "prompts.train"))
