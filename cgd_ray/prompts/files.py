"""Prompt files, local or on S3, read row by row: a file is never in memory as a whole."""

import csv
import fnmatch
import gzip
import json
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cgd_ray.errors import UserError
from cgd_ray.prompts.rows import Row
from cgd_ray.store import Entry, LocalStore, Store, open_store, split_location

_ROWS_AT_A_TIME = 1024
_LONGEST_LINE = 256 << 20  # bytes: a file without line ends must not fill the memory
_SPLITS = "dataset_dict.json"  # beside the folders of splits that `save_to_disk` writes
_BOM = b"\xef\xbb\xbf"
_Values = Iterator[tuple[int, dict[str, Any]]]  # rows, numbered


def prompt_files(location: str, setting: str) -> list[Entry]:
    """Return the prompt files of a location (a file, a folder or a glob) in key order.

    Raises:
        UserError: there is none, or the store cannot be reached.
    """
    root, pattern = split_location(location)
    store = open_store(root)
    store.check(setting)
    listed = list(store.list(pattern.split("*")[0]))
    if any(entry.key == f"{pattern.rstrip('/')}/{_SPLITS}" for entry in listed):
        raise UserError(
            f"{setting}={location} holds the splits of a data set: name one, such as "
            f"{location.rstrip('/')}/{setting.rpartition('.')[2]}"
        )
    entries = [entry for entry in listed if _matches(entry.key, pattern)]
    if not entries:
        known = ", ".join(_READERS)
        raise UserError(f"{setting}={location} matches no prompt file ({known})")
    return entries


def file_rows(location: str, setting: str) -> Iterator[Row]:
    """Yield the rows of a location's files, in order.

    Raises:
        UserError: a file is missing or corrupt; rows before the damage have been yielded.
    """
    store = open_store(split_location(location)[0])
    for entry in prompt_files(location, setting):
        read = next(read for ending, read in _READERS.items() if entry.key.endswith(ending))
        with _on_disk(store, entry.key) as path:
            for number, values in read(path, entry.key):
                yield Row(entry.key, number, values)


@contextmanager
def _on_disk(store: Store, key: str) -> Iterator[Path]:
    """Hold a file of the store as a local file: parquet is read from its end, text in pieces."""
    if isinstance(store, LocalStore):
        yield Path(store.root, key)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "prompts")
        store.download(key, path)
        yield path


def _matches(key: str, pattern: str) -> bool:
    if not key.endswith(tuple(_READERS)):
        return False
    folder = pattern.rstrip("/") + "/" if pattern not in ("", ".") else ""
    return key == pattern or key.startswith(folder) or fnmatch.fnmatch(key, pattern)


def _parquet_rows(path: Path, key: str) -> _Values:
    try:
        with pq.ParquetFile(path) as file:
            batches = file.iter_batches(batch_size=_ROWS_AT_A_TIME)
            yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{key} is not a readable parquet file: {_first_line(error)}") from error


def _arrow_rows(path: Path, key: str) -> _Values:
    """Read what the `save_to_disk` of Hugging Face `datasets` writes."""
    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
            yield from enumerate((row for batch in stream for row in batch.to_pylist()), 1)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{key} is not a readable Arrow file: {_first_line(error)}") from error


def _csv_rows(path: Path, key: str) -> _Values:
    """Read a table with a header line; every value stays the text that it is."""
    csv.field_size_limit(_LONGEST_LINE)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, values in enumerate(csv.DictReader(file, strict=True), 1):
                if None in values or None in values.values():
                    raise UserError(f"{key}:{number} has not as many values as the header")
                yield number, values
    except (csv.Error, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{key} is not a readable CSV file: {_first_line(error)}") from error


def _json_rows(path: Path, key: str) -> _Values:
    with path.open("rb") as file:
        yield from _json_lines(file, key)


def _gzip_rows(path: Path, key: str) -> _Values:
    with gzip.open(path) as file:
        yield from _json_lines(file, key)


def _json_lines(file: BufferedIOBase, key: str) -> _Values:
    for number, line in _numbered_lines(file, key):
        try:
            values = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise UserError(f"{key}:{number} is not UTF-8 text: {_first_line(error)}") from error
        except (ValueError, RecursionError) as error:  # endless digits, endless brackets
            raise UserError(f"{key}:{number} is not JSON: {_first_line(error)}") from error
        if not isinstance(values, dict):
            raise UserError(f"{key}:{number} is not a JSON object")
        yield number, values


def _numbered_lines(file: BufferedIOBase, key: str) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        while line := file.readline(_LONGEST_LINE + 1):
            number += 1
            if len(line) > _LONGEST_LINE:
                raise UserError(
                    f"{key}:{number} is longer than {_LONGEST_LINE} bytes: a jsonl file has one "
                    "row a line"
                )
            line = line.removeprefix(_BOM) if number == 1 else line
            if line.strip():
                yield number, line
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{key} is not readable after line {number}: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]


_READERS: dict[str, Callable[[Path, str], _Values]] = {
    ".jsonl": _json_rows,
    ".jsonl.gz": _gzip_rows,
    ".parquet": _parquet_rows,
    ".arrow": _arrow_rows,
    ".csv": _csv_rows,
}
