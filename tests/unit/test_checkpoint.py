"""Training states in the store: whole when the manifest is there, refused when a byte is wrong."""

import dataclasses
from pathlib import Path

import pytest

from cgd_ray.errors import UserError
from cgd_ray.records import Checkpoint, StateFile
from cgd_ray.store import LocalStore
from cgd_ray.training.checkpoint import (
    checkpoint_folder,
    commit_checkpoint,
    delete_checkpoints,
    fetch_file,
    file_hash,
    list_checkpoints,
    prune,
    require_same,
    upload_files,
)

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
NAME = "worker-00000-00000.safetensors"
MADE_WITH = {"run.seed": 1, "train.num_epochs": 2}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "store"))


def save(store: LocalStore, step: int = 40, attempt: str = "a", *, commit: bool = True) -> str:
    """Write a checkpoint of one file; return its folder."""
    folder = checkpoint_folder("run", step, attempt)
    source = Path(store.root).parent / "source"
    source.mkdir(exist_ok=True)
    (source / NAME).write_bytes(bytes(range(256)) * 40)
    files = tuple(
        StateFile(name, size, digest, (("w", 0, 7), ("b", 2, 3)))
        for name, size, digest in upload_files(store, folder, source)
    )
    if commit:
        commit_checkpoint(store, Checkpoint(folder, step, step + 1.0, 2, MADE_WITH, files))
    return folder


def test_it_comes_back_as_it_was(store: LocalStore, tmp_path: Path) -> None:
    folder = save(store)
    (checkpoint,) = list_checkpoints(store, "run")
    (file,) = checkpoint.files
    assert dataclasses.replace(checkpoint, files=()) == Checkpoint(
        folder, 40, 41.0, 2, MADE_WITH, ()
    )
    assert (file.name, file.num_bytes, file.pieces) == (NAME, 10240, (("w", 0, 7), ("b", 2, 3)))
    assert fetch_file(store, checkpoint, file, tmp_path / "target") is None
    assert (tmp_path / "target").read_bytes() == bytes(range(256)) * 40
    assert file.sha256 == file_hash(tmp_path / "target")
    (tmp_path / "empty").touch()
    assert file_hash(tmp_path / "empty") == EMPTY_SHA256


def test_without_its_manifest_it_does_not_exist(store: LocalStore) -> None:
    save(store, commit=False)
    assert list_checkpoints(store, "run") == []


def test_the_newest_comes_first_by_number(store: LocalStore) -> None:
    for step in (80, 9, 100_000_000, 120):
        save(store, step)
    assert [c.step for c in list_checkpoints(store, "run")] == [100_000_000, 120, 80, 9]
    assert list_checkpoints(store, "other") == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("missing", f"{NAME} is missing"),
        ("truncated", f"{NAME} has 100 bytes, not 10240"),
        ("grown", f"{NAME} has 10241 bytes, not 10240"),
        ("altered", f"{NAME} does not match its SHA-256"),
        ("empty", f"{NAME} has 0 bytes, not 10240"),
    ],
)
def test_a_damaged_file_is_refused(
    store: LocalStore, tmp_path: Path, damage: str, said: str
) -> None:
    key = f"{save(store)}/{NAME}"
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
    assert fetch_file(store, checkpoint, checkpoint.files[0], tmp_path / "target") == said


def test_no_bit_of_a_manifest_can_be_wrong_unseen(store: LocalStore) -> None:
    key = f"{save(store)}/MANIFEST.json"
    data = store.get(key)
    (whole,) = list_checkpoints(store, "run")
    for place in range(len(data)):
        store.put(key, data[:place] + bytes([data[place] ^ 2]) + data[place + 1 :])
        assert list_checkpoints(store, "run") in ([], [whole]), place
        store.put(key, data[:place])
        assert list_checkpoints(store, "run") == []
    for other in (b"[]", b"null", b'{"sha256": 1, "checkpoint": 2}'):
        store.put(key, other)
        assert list_checkpoints(store, "run") == []


def test_a_state_of_other_settings_is_refused_by_name(store: LocalStore) -> None:
    save(store)
    (checkpoint,) = list_checkpoints(store, "run")
    require_same(checkpoint, dict(MADE_WITH))
    with pytest.raises(UserError, match=r"train\.num_epochs=2, this run has train\.num_epochs=3"):
        require_same(checkpoint, {**MADE_WITH, "train.num_epochs": 3})
    with pytest.raises(UserError, match=r"train\.new=None, this run has train\.new=1"):
        require_same(checkpoint, {**MADE_WITH, "train.new": 1})


def test_the_newest_stay_and_what_dead_attempts_left_goes(store: LocalStore) -> None:
    for step in (10, 20, 30):
        save(store, step, "a")
    save(store, 40, "dead", commit=False)
    save(store, 40, "mine", commit=False)
    prune(store, "run", 2, "mine")
    folders = {entry.key.split("/")[2] for entry in store.list("run/states/")}
    assert folders == {"step-00000020-a", "step-00000030-a", "step-00000040-mine"}
    assert [c.step for c in list_checkpoints(store, "run")] == [30, 20]
    save(store, 30, "mine")
    prune(store, "run", 2, "mine", damaged=["run/states/step-00000030-a"])
    assert {c.folder[-2:] for c in list_checkpoints(store, "run")} == {"-a", "ne"}
    assert [c.step for c in list_checkpoints(store, "run")] == [30, 20]


def test_deleting_begins_with_the_manifest(store: LocalStore) -> None:
    save(store)
    deleted: list[str] = []
    real = store.delete
    store.delete = lambda key: (deleted.append(key), real(key))[1]  # type: ignore[method-assign]
    delete_checkpoints(store, "run")
    assert deleted[0].endswith("MANIFEST.json")
    assert len(deleted) == 2
    assert list(store.list("run/")) == []


def test_a_full_disk_leaves_no_half_object(store: LocalStore, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(b"1" * 100)
    target = Path(store.root) / "a"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shutil.copyfile", _full)
        with pytest.raises(UserError, match=r"a/b cannot be written: No space left on device"):
            store.upload(source, "a/b")
    assert list(target.iterdir()) == []
    assert list(store.list("")) == []


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")
