"""Objects in a local folder."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cgd_ray.errors import UserError
from cgd_ray.store.protocol import Entry, MissingKey, StoreError


class LocalStore:
    """A folder. Writes go to a temporary file that is then linked or renamed into place."""

    def __init__(self, root: str) -> None:
        self.root = str(Path(root).expanduser().resolve())
        self._folder = Path(self.root)

    def get(self, key: str) -> bytes:
        """Return an object. Raises MissingKey."""
        try:
            return (self._folder / key).read_bytes()
        except (FileNotFoundError, IsADirectoryError) as error:
            raise MissingKey(key) from error

    def get_head(self, key: str, num_bytes: int) -> bytes:
        """Return the first bytes of an object, or all if it is shorter. Raises MissingKey."""
        try:
            with (self._folder / key).open("rb") as file:
                return file.read(num_bytes)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise MissingKey(key) from error

    def put(self, key: str, data: bytes) -> None:
        """Create or replace an object, atomically."""
        self._temporary(key, data).replace(self._folder / key)

    def put_new(self, key: str, data: bytes) -> bool:
        """Create an object; return False, changing nothing, if the key exists."""
        temporary = self._temporary(key, data)
        try:
            os.link(temporary, self._folder / key)
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        return True

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yield the objects whose key begins with `prefix`, in key order."""
        start = self._folder / prefix.rpartition("/")[0]
        files = (p for p in start.rglob("*") if p.is_file() and not p.name.startswith(".tmp-"))
        for key, path in sorted((p.relative_to(self._folder).as_posix(), p) for p in files):
            if key.startswith(prefix):
                try:
                    stat = path.stat()
                except FileNotFoundError:  # deleted since: another process tidies the same run
                    continue
                version, age_s = f"{stat.st_size}-{stat.st_mtime_ns}", time.time() - stat.st_mtime
                yield Entry(key, stat.st_size, version, age_s)

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is no error."""
        (self._folder / key).unlink(missing_ok=True)

    def upload(self, path: Path, key: str) -> None:
        """Put a file, of any size, as an object. Raises StoreError: the disk is full, read-only."""
        temporary = self._temporary(key, b"")
        try:
            shutil.copyfile(path, temporary)
            temporary.replace(self._folder / key)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise StoreError(f"{self._folder / key} cannot be written: {error.strerror}") from error

    def download(self, key: str, path: Path) -> None:
        """Write an object to a file. Raises MissingKey."""
        try:
            shutil.copyfile(self._folder / key, path)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise MissingKey(key) from error

    def check(self, setting: str) -> None:
        """Refuse a root that is a file.

        Raises:
            UserError: the message names the setting.
        """
        if self._folder.is_file():
            raise UserError(f"{setting}={self.root} is a file: name a folder or s3://bucket/prefix")

    def _temporary(self, key: str, data: bytes) -> Path:
        """Write a file beside its later place. Raises StoreError: the disk is full, read-only."""
        target, name = self._folder / key, None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".tmp-", dir=target.parent)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if name:
                Path(name).unlink(missing_ok=True)
            raise StoreError(f"{target} cannot be written: {error.strerror}") from error
        return Path(name)
