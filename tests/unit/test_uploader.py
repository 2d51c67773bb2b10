"""Uploads by a process of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cgd_ray.store import LocalStore, StoreError
from cgd_ray.training.checkpoint import file_hash
from cgd_ray.training.uploader import Uploader


@pytest.fixture
def uploader(tmp_path: Path) -> Iterator[Uploader]:
    uploader = Uploader(str(tmp_path / "store"))
    yield uploader
    uploader.close()


def test_it_uploads_says_why_not_and_goes_on(uploader: Uploader, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(bytes(range(256)))
    assert uploader.send(source, "a/b") == (256, file_hash(source))
    assert LocalStore(str(tmp_path / "store")).get("a/b") == bytes(range(256))
    with pytest.raises(StoreError, match=r"a/b/c cannot be written: File exists"):
        uploader.send(source, "a/b/c")
    source.write_bytes(b"")
    assert uploader.send(source, "d")[0] == 0


def test_its_death_is_an_error_and_no_wait(uploader: Uploader, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    uploader._process.kill()
    for _ in range(2):
        with pytest.raises(StoreError, match="the uploading process is gone"):
            uploader.send(tmp_path / "file", "a")
