"""Models on nodes that are not the driver's."""

import json
import threading
from pathlib import Path

import pytest

from cgd_ray.errors import UserError
from cgd_ray.model_folders import on_this_node
from cgd_ray.store import open_store
from cgd_ray.training.checkpoint import file_hash

WEIGHTS = b"weights" * 1000


@pytest.fixture
def root(tmp_path: Path) -> str:
    """A store that holds a trained student."""
    local = tmp_path / "weights"
    local.write_bytes(WEIGHTS)
    store = open_store(str(tmp_path / "store"))
    store.put("checkpoint-1/model/model.safetensors", WEIGHTS)
    listing = [["model.safetensors", len(WEIGHTS), file_hash(local)]]
    store.put("checkpoint-1/model.json", json.dumps(listing).encode())
    return store.root


def test_a_trained_student_is_fetched_where_the_drivers_folder_is_missing(
    root: str, tmp_path: Path
) -> None:
    source = tmp_path / "node" / "models" / "checkpoint-1"
    workers = [threading.Thread(target=on_this_node, args=(str(source), root)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [path.name for path in source.iterdir()] == ["model.safetensors"]
    assert (source / "model.safetensors").read_bytes() == WEIGHTS


def test_a_folder_that_is_there_is_left_alone(root: str, tmp_path: Path) -> None:
    source = tmp_path / "models" / "checkpoint-1"
    source.mkdir(parents=True)
    assert on_this_node(str(source), root) == str(source)
    assert not list(source.iterdir())


def test_hub_ids_and_folders_of_the_users_are_as_they_are(root: str, tmp_path: Path) -> None:
    for source in ("org/checkpoint-1", "/nowhere/models/mine", str(tmp_path / "checkpoint-1")):
        assert on_this_node(source, root) == source
    assert not (tmp_path / "checkpoint-1").exists()


def test_damaged_files_are_refused(root: str, tmp_path: Path) -> None:
    open_store(root).put("checkpoint-1/model/model.safetensors", b"others")
    source = tmp_path / "models" / "checkpoint-1"
    with pytest.raises(UserError, match="damaged"):
        on_this_node(str(source), root)
    assert not source.exists()
