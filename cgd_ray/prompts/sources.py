"""Sources of prompts: generated problems, and files, local or on S3, read as a stream.

`load_prompts` makes the first noun: a prompt, with an id that is the hash of its text. Memory is
bounded by one chunk and 16 bytes for each prompt taken.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Literal

from cgd_ray.errors import UserError
from cgd_ray.identity import content_id
from cgd_ray.prompts.files import file_rows, prompt_files
from cgd_ray.prompts.generated import GENERATED, generated_rows
from cgd_ray.prompts.rows import Row
from cgd_ray.prompts.seen import SeenIds
from cgd_ray.records import Failure, Outcomes, Prompt
from cgd_ray.settings import ColumnSettings, PromptSettings

MAX_CHUNK_ROWS = 1024
_MAX_CHUNK_CHARACTERS = 16 << 20
Split = Literal["train", "test"]


def source_versions(settings: PromptSettings) -> tuple[str, ...]:
    """Return what changes when a prompt file does; nothing for generated problems.

    Raises:
        UserError: a file is missing.
    """
    named = (("prompts.train", settings.train), ("prompts.test", settings.test))
    located = [(n, x) for n, x in named if x and not x.startswith(GENERATED)]
    return tuple(f"{e.key}:{e.version}" for n, x in located for e in prompt_files(x, n))


def load_prompts(settings: PromptSettings, seed: int) -> Iterator[Outcomes]:
    """Yield the prompts, ids disjoint, and a failure for each unusable row, in chunks.

    A chunk holds rows of one split, in source order, at most `MAX_CHUNK_ROWS` of them. The same
    sources give the same chunks.

    Raises:
        UserError: a file is missing, corrupt, empty, lacks a column or repeats a prompt.
    """
    loader = _Loader(settings)
    test = settings.test or settings.train
    if test == settings.train and not test.startswith(GENERATED):
        # One file for both is cut in two: its head trains, its tail tests.
        rows = _rows(settings, "train", test, seed)
        yield from loader.take(rows, "train", test, settings.num_train)
        yield from loader.take(rows, "test", test, settings.num_test)
        return
    # The test prompts first: training gives way to them, and they stay when it grows.
    yield from loader.take(_rows(settings, "test", test, seed), "test", test, settings.num_test)
    rows = _rows(settings, "train", settings.train, seed)
    yield from loader.take(rows, "train", settings.train, settings.num_train)


def _rows(settings: PromptSettings, split: Split, location: str, seed: int) -> Iterator[Row]:
    if location.startswith(GENERATED):
        return generated_rows(location, settings.options, seed, split)
    return file_rows(location, f"prompts.{split}")


class _Loader:
    """Makes prompts of rows, and remembers the ids that it has taken."""

    def __init__(self, settings: PromptSettings) -> None:
        self._settings = settings
        self._seen = SeenIds()

    def take(
        self, rows: Iterator[Row], split: Split, location: str, limit: int | None
    ) -> Iterator[Outcomes]:
        """Yield the outcomes of rows, in chunks, until `limit` prompts are made."""
        before = len(self._seen)
        made = self._made(rows, split, location)
        example = ""
        num_failures = 0
        for chunk in _chunks(made, limit):
            num_failures += len(chunk.failures)
            if chunk.failures and not example:
                example = f"; for example {chunk.failures[0].detail}"
            yield chunk
        if len(self._seen) == before:
            raise UserError(
                f"prompts.{split}={location} has no usable rows ({num_failures} unusable{example})"
            )

    def _made(self, rows: Iterator[Row], split: Split, location: str) -> Iterator[Prompt | Failure]:
        columns = self._settings.columns
        generated = location.startswith(GENERATED)
        # Data said to have no references can be drafted and taught from; evaluation will refuse it.
        graded = split == "test" and columns.reference is not None
        if generated:
            columns = ColumnSettings(solution=None)
        for row in rows:
            made = _make_prompt(row, columns, location, split, graded=graded)
            if isinstance(made, Prompt):
                place = self._seen.place(made.id)
                if place is None:
                    self._seen.add(made.id, row.file, row.number)
                elif generated:
                    continue  # small families repeat themselves: a draw, not a row
                else:
                    made = self._duplicate(row, split, made.id, place)
            yield made

    def _duplicate(self, row: Row, split: Split, prompt_id: str, place: str) -> Failure:
        # A file that repeats itself may hide a mistake.
        if self._settings.on_duplicate == "error":
            raise UserError(
                f"{row.where} has the same prompt as {place} (id {prompt_id}): remove one, or set "
                "prompts.on_duplicate=first"
            )
        return _failure(row, split, "duplicate", f"the same prompt as {place}")


def _chunks(made: Iterator[Prompt | Failure], limit: int | None) -> Iterator[Outcomes]:
    """Yield outcomes in chunks until `limit` prompts are among them; take no row more."""
    left = limit
    while left is None or left > 0:
        prompts: list[Prompt] = []
        failures: list[Failure] = []
        num_characters = 0
        for one in islice(made, MAX_CHUNK_ROWS):
            if isinstance(one, Failure):
                failures.append(one)
                continue
            prompts.append(one)
            num_characters += len(one.text) + len(one.solution or "")
            if len(prompts) == left or num_characters > _MAX_CHUNK_CHARACTERS:
                break
        if not prompts and not failures:
            return
        yield Outcomes(tuple(prompts), tuple(failures))
        left = None if left is None else left - len(prompts)


def _make_prompt(
    row: Row, columns: ColumnSettings, source: str, split: Split, *, graded: bool
) -> Prompt | Failure:
    text = _column(row, columns.prompt, "prompt")
    reference = _column(row, columns.reference, "reference") if columns.reference else None
    if not isinstance(text, str) or not text.strip():
        empty = text is None or isinstance(text, str)
        return _failure(
            row, split, "empty_prompt", f"the prompt is {'empty' if empty else 'not text'}"
        )
    if not text.isprintable() and ("\0" in text or _has_surrogate(text)):
        return _failure(row, split, "bad_text", "the prompt holds NUL or lone surrogate characters")
    solution = row.values.get(columns.solution) if columns.solution else None
    if graded and _text_or_none(reference) is None:
        why = "a test prompt needs a reference (prompts.columns.reference)"
        return _failure(row, split, "no_reference", why)
    return Prompt(
        id=content_id(text.strip()),
        text=text.strip(),
        reference=_text_or_none(reference),
        solution=_text_or_none(solution),
        source=source,
        split=split,
    )


def _column(row: Row, name: str, setting: str) -> object:
    if name not in row.values:
        raise UserError(
            f"{row.where} has no column '{name}' (it has {', '.join(map(str, row.values))}): set "
            f"prompts.columns.{setting}"
        )
    return row.values[name]


def _failure(row: Row, split: Split, reason: str, why: str) -> Failure:
    row_id = f"unusable:{split}:{row.where}"
    return Failure(row_id, "prompts", reason, f"{row.where}: {why}", permanent=True)


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in text)


def _text_or_none(value: object) -> str | None:
    text = "" if value is None else str(value).strip()
    return text or None
