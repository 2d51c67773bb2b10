"""Training states in the store: whole when the manifest is there, refused when a byte is wrong."""

import json
from pathlib import Path

import pytest

from cgd_ray.store import LocalStore
from cgd_ray.training.checkpoint import (
    checkpoint_folder,
    commit_checkpoint,
    delete_checkpoint,
    download_checkpoint,
    file_hash,
    list_checkpoints,
    upload_files,
)

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "store"))


def save(store: LocalStore, source: Path, step: int = 40, num_workers: int = 2) -> str:
    """Write a checkpoint of two files; return its folder."""
    (source / "state").mkdir(parents=True, exist_ok=True)
    (source / "latest").write_text("state")
    (source / "state" / "rank0.pt").write_bytes(bytes(range(256)) * step)
    folder = checkpoint_folder("run", step)
    commit_checkpoint(store, folder, step, num_workers, upload_files(store, folder, source))
    return folder


def test_it_comes_back_as_it_was(store: LocalStore, tmp_path: Path) -> None:
    folder = save(store, tmp_path / "source")
    (checkpoint,) = list_checkpoints(store, "run")
    assert (checkpoint.step, checkpoint.num_workers, checkpoint.folder) == (40, 2, folder)
    assert [name for name, _, _ in checkpoint.files] == ["latest", "state/rank0.pt"]
    assert download_checkpoint(store, checkpoint, tmp_path / "target") is None
    for name in ("latest", "state/rank0.pt"):
        assert (tmp_path / "target" / name).read_bytes() == (
            tmp_path / "source" / name
        ).read_bytes()


def test_a_manifest_says_sizes_and_hashes(store: LocalStore, tmp_path: Path) -> None:
    folder = save(store, tmp_path / "source")
    manifest = json.loads(store.get(f"{folder}/MANIFEST.json"))
    assert manifest["step"] == 40
    name, size, digest = manifest["files"][1]
    path = tmp_path / "source" / name
    assert (name, size, digest) == ("state/rank0.pt", 256 * 40, file_hash(path))
    (tmp_path / "empty").touch()
    assert file_hash(tmp_path / "empty") == EMPTY_SHA256


def test_without_its_manifest_it_does_not_exist(store: LocalStore, tmp_path: Path) -> None:
    folder = checkpoint_folder("run", 40)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_bytes(b"1")
    upload_files(store, folder, tmp_path / "source")
    assert list_checkpoints(store, "run") == []


def test_the_newest_comes_first_by_number(store: LocalStore) -> None:
    for step in (80, 9, 100_000_000, 120):
        commit_checkpoint(store, checkpoint_folder("run", step), step, 1, [])
    assert [c.step for c in list_checkpoints(store, "run")] == [100_000_000, 120, 80, 9]
    assert list_checkpoints(store, "other") == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("missing", "state/rank0.pt is missing"),
        ("truncated", "state/rank0.pt has 100 bytes, not 10240"),
        ("grown", "state/rank0.pt has 10241 bytes, not 10240"),
        ("altered", "state/rank0.pt does not match its SHA-256"),
        ("empty", "state/rank0.pt has 0 bytes, not 10240"),
    ],
)
def test_a_damaged_file_is_refused(
    store: LocalStore, tmp_path: Path, damage: str, said: str
) -> None:
    folder = save(store, tmp_path / "source")
    key = f"{folder}/state/rank0.pt"
    data = store.get(key)
    if damage == "missing":
        store.delete(key)
    else:
        flipped = bytes([data[5000] ^ 1])
        store.put(
            key,
            {
                "truncated": data[:100],
                "grown": data + b"x",
                "altered": data[:5000] + flipped + data[5001:],
                "empty": b"",
            }[damage],
        )
    (checkpoint,) = list_checkpoints(store, "run")
    assert download_checkpoint(store, checkpoint, tmp_path / "target") == said


def test_deleting_begins_with_the_manifest(store: LocalStore, tmp_path: Path) -> None:
    save(store, tmp_path / "source")
    (checkpoint,) = list_checkpoints(store, "run")
    deleted: list[str] = []
    real = store.delete
    store.delete = lambda key: (deleted.append(key), real(key))[1]  # type: ignore[method-assign]
    delete_checkpoint(store, checkpoint)
    assert deleted[0].endswith("MANIFEST.json")
    assert len(deleted) == 3
    assert list(store.list("run/")) == []
