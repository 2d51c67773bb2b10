"""Sources of prompts: generated problems, jsonl and parquet files, local or on S3.

`load_prompts` makes the first noun: a prompt, with an id that is the hash of its text.
"""

import fnmatch
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import reasoning_gym

from cgd_ray.errors import UserError
from cgd_ray.identity import content_id
from cgd_ray.records import Failure, Outcomes, Prompt
from cgd_ray.settings import ColumnSettings, PromptSettings
from cgd_ray.store import Entry, open_store, split_location

GENERATED = "reasoning-gym:"
_ENDINGS = (".jsonl", ".jsonl.gz", ".parquet")
Split = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class _Row:
    where: str  # file and line, or generator and index
    prompt: object
    reference: object
    solution: object


def source_versions(settings: PromptSettings) -> tuple[str, ...]:
    """Return what changes when a prompt file does; nothing for generated problems.

    Raises:
        UserError: a file is missing.
    """
    named = (("prompts.train", settings.train), ("prompts.test", settings.test))
    located = [(n, x) for n, x in named if x and not x.startswith(GENERATED)]
    return tuple(f"{e.key}:{e.version}" for n, x in located for e in _files(x, n))


def load_prompts(settings: PromptSettings, seed: int) -> Outcomes:
    """Return the training and test prompts, ids disjoint, and a failure for each unusable row.

    Raises:
        UserError: a file is missing, corrupt, empty, lacks a column or repeats a prompt.
    """
    seen: dict[str, str] = {}
    location = settings.test or settings.train
    sources = {
        "train": (settings.train, settings.num_train),
        "test": (location, settings.num_test),
    }
    # The test prompts first: training gives way to them, and they stay when it grows. One file for
    # both is cut in two: its head trains, its tail tests.
    one_file = location == settings.train and not location.startswith(GENERATED)
    order: tuple[Split, ...] = ("train", "test") if one_file else ("test", "train")
    loaded = {split: _load_split(settings, split, *sources[split], seed, seen) for split in order}
    return loaded["train"] + loaded["test"]


def _load_split(
    settings: PromptSettings,
    split: Split,
    location: str,
    limit: int | None,
    seed: int,
    seen: dict[str, str],
) -> Outcomes:
    generated = location.startswith(GENERATED)
    # Data said to have no references can be drafted and taught from; evaluation will refuse it.
    graded = split == "test" and settings.columns.reference is not None
    if generated:
        rows = _generated_rows(location, settings.options, _stream_seed(seed, split))
    else:
        rows = _file_rows(location, settings.columns, f"prompts.{split}")
    prompts: list[Prompt] = []
    failures: list[Failure] = []
    for row in rows:
        if limit is not None and len(prompts) >= limit:
            break
        made = _make_prompt(row, location, split, graded=graded)
        if isinstance(made, Failure):
            failures.append(made)
            continue
        if made.id in seen:
            # Small generated families repeat themselves; a file that does hides a mistake.
            if not generated and settings.on_duplicate == "error":
                raise UserError(
                    f"{row.where} has the same prompt as {seen[made.id]} (id {made.id}): remove "
                    "one, or set prompts.on_duplicate=first"
                )
            continue
        seen[made.id] = row.where
        prompts.append(made)
    if not prompts:
        example = f"; for example {failures[0].detail}" if failures else ""
        raise UserError(
            f"prompts.{split}={location} has no usable rows ({len(failures)} unusable{example})"
        )
    return Outcomes(tuple(prompts), tuple(failures))


def _make_prompt(row: _Row, source: str, split: Split, *, graded: bool) -> Prompt | Failure:
    row_id = f"unusable:{split}:{row.where}"
    if not isinstance(row.prompt, str) or not row.prompt.strip():
        empty = row.prompt is None or isinstance(row.prompt, str)
        detail = f"{row.where}: the prompt is {'empty' if empty else 'not text'}"
        return Failure(row_id, "prompts", "empty_prompt", detail, permanent=True)
    if not row.prompt.isprintable() and ("\0" in row.prompt or _has_surrogate(row.prompt)):
        detail = f"{row.where}: the prompt holds NUL or lone surrogate characters"
        return Failure(row_id, "prompts", "bad_text", detail, permanent=True)
    text = row.prompt.strip()
    reference = _text_or_none(row.reference)
    if graded and reference is None:
        detail = f"{row.where}: a test prompt needs a reference (prompts.columns.reference)"
        return Failure(row_id, "prompts", "no_reference", detail, permanent=True)
    return Prompt(
        id=content_id(text),
        text=text,
        reference=reference,
        solution=_text_or_none(row.solution),
        source=source,
        split=split,
    )


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in text)


def _text_or_none(value: object) -> str | None:
    text = "" if value is None else str(value).strip()
    return text or None


def _stream_seed(seed: int, split: Split) -> int:
    """Return a seed for the generator, which draws problem i from seed + i: neighbours overlap."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{split}".encode()).digest()[:6])


def _generated_rows(location: str, options: dict[str, Any], seed: int) -> Iterator[_Row]:
    """Yield problems of a reasoning-gym family, many more than asked for: some repeat."""
    family = location.removeprefix(GENERATED)
    try:
        problems = reasoning_gym.create_dataset(family, size=1_000_000, seed=seed, **options)
    except (ValueError, TypeError, AssertionError) as error:
        raise UserError(f"'{location}' with prompts.options={options}: {error}") from error
    misses = 0
    seen: set[str] = set()
    for index in range(1_000_000):
        item = problems[index]
        misses = misses + 1 if item["question"] in seen else 0
        if misses > 1000:
            raise UserError(
                f"'{location}' with prompts.options={options} has only {len(seen)} different "
                "problems: lower prompts.num_train or prompts.num_test"
            )
        seen.add(item["question"])
        yield _Row(f"{family} {index}", item["question"], item["answer"], None)


def _file_rows(location: str, columns: ColumnSettings, setting: str) -> Iterator[_Row]:
    root, _ = split_location(location)
    store = open_store(root)
    for entry in _files(location, setting):
        data = store.get(entry.key)
        if entry.key.endswith(".parquet"):
            rows = _parquet_rows(data, entry.key)
        else:
            rows = _json_rows(data, entry.key)
        for number, row in rows:
            yield _pick(row, f"{entry.key}:{number}", columns)


def _pick(row: dict[str, Any], where: str, columns: ColumnSettings) -> _Row:
    for name, setting in ((columns.prompt, "prompt"), (columns.reference, "reference")):
        if name is not None and name not in row:
            raise UserError(
                f"{where} has no column '{name}' (it has {', '.join(map(str, row))}): set "
                f"prompts.columns.{setting}"
            )
    reference = row[columns.reference] if columns.reference else None
    solution = row.get(columns.solution) if columns.solution else None
    return _Row(where, row[columns.prompt], reference, solution)


def _files(location: str, setting: str) -> list[Entry]:
    """Return the prompt files of a location: a file, a folder or a glob."""
    root, pattern = split_location(location)
    store = open_store(root)
    store.check(setting)
    prefix = pattern.split("*")[0]
    entries = [e for e in store.list(prefix) if _matches(e.key, pattern)]
    if not entries:
        raise UserError(f"{setting}={location} matches no .jsonl, .jsonl.gz or .parquet file")
    return entries


def _matches(key: str, pattern: str) -> bool:
    if not key.endswith(_ENDINGS):
        return False
    folder = pattern.rstrip("/") + "/" if pattern not in ("", ".") else ""
    return key == pattern or key.startswith(folder) or fnmatch.fnmatch(key, pattern)


def _parquet_rows(data: bytes, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{key} is not a readable parquet file: {_first_line(error)}") from error
    yield from enumerate((row for batch in table.to_batches() for row in batch.to_pylist()), 1)


def _json_rows(data: bytes, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = (gzip.decompress(data) if key.endswith(".gz") else data).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{key} is not readable text: {_first_line(error)}") from error
    for number, line in _numbered(text.split("\n")):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # endless digits, endless brackets
            raise UserError(f"{key}:{number} is not JSON: {_first_line(error)}") from error
        if not isinstance(row, dict):
            raise UserError(f"{key}:{number} is not a JSON object")
        yield number, row


def _numbered(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    return ((i, line) for i, line in enumerate(lines, 1) if line.strip())


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
