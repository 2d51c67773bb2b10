"""Sources of prompts: generated problems, data sets of the hub, and files, local or on S3.

`load_prompts` makes the first noun: a prompt, with an id that is the hash of its text. Memory is
bounded by one chunk and 16 bytes for each prompt taken; looking for near duplicates and for
contamination keeps an index besides.
"""

from collections.abc import Callable, Iterator
from itertools import islice

from cgd_ray.curation.decontamination import EvaluationIndex, Match
from cgd_ray.errors import UserError
from cgd_ray.prompts.files import file_rows, prompt_files
from cgd_ray.prompts.generated import generated_rows
from cgd_ray.prompts.hub import hub_rows, hub_version
from cgd_ray.prompts.locations import GENERATED, HUB
from cgd_ray.prompts.overlap import Overlap
from cgd_ray.prompts.rows import Row, Split
from cgd_ray.prompts.screening import Screen, make_prompt
from cgd_ray.prompts.shapes import Problem, Shape, Unusable, shape_of, to_problem
from cgd_ray.records import Failure, Outcomes, Prompt
from cgd_ray.settings import ColumnSettings, PromptSettings

MAX_CHUNK_ROWS = 1024
_MAX_CHUNK_CHARACTERS = 16 << 20
Tell = Callable[[str], None]


def source_versions(settings: PromptSettings) -> tuple[str, ...]:
    """Return what changes when a prompt source does; nothing for generated problems.

    Raises:
        UserError: a file is missing, or the hub cannot be reached.
    """
    named = [("prompts.train", settings.train), ("prompts.test", settings.test)]
    named += [("prompts.decontaminate", location) for location in settings.decontaminate or ()]
    located = [(n, x) for n, x in named if x and not x.startswith(GENERATED)]
    return tuple(version for n, x in located for version in _versions(x, n))


def load_prompts(
    settings: PromptSettings, seed: int, tell: Tell = lambda _: None
) -> Iterator[Outcomes]:
    """Yield the prompts, ids disjoint, and a failure for each unusable row, in chunks.

    A chunk holds rows of one split, in source order, at most `MAX_CHUNK_ROWS` of them. The same
    sources give the same chunks.

    Args:
        settings: the sources and what is taken of them.
        seed: of generated problems.
        tell: is given a line a source, with the shape that its rows have.

    Raises:
        UserError: a file is missing, corrupt, empty, lacks a column or repeats a prompt.
    """
    evaluation = _evaluation_index(settings, seed)
    loader = _Loader(settings, Screen(settings, evaluation), tell)
    test = settings.test or settings.train
    if settings.splits_one_file:
        # One file for both is cut in two: its head trains, its tail tests.
        rows = _rows(settings, test, "prompts.train", seed)
        yield from loader.take(rows, "train", test, settings.num_train)
        yield from loader.take(rows, "test", test, settings.num_test)
        return
    # The test prompts first: training gives way to them, and they stay when it grows.
    rows = _rows(settings, test, "prompts.test", seed)
    yield from loader.take(rows, "test", test, settings.num_test)
    rows = _rows(settings, settings.train, "prompts.train", seed)
    yield from loader.take(rows, "train", settings.train, settings.num_train)


def _versions(location: str, setting: str) -> list[str]:
    if location.startswith(HUB):
        return [f"{location}:{hub_version(location, setting)}"]
    return [f"{entry.key}:{entry.version}" for entry in prompt_files(location, setting)]


def _rows(settings: PromptSettings, location: str, setting: str, seed: int) -> Iterator[Row]:
    if location.startswith(GENERATED):
        return generated_rows(location, settings.options, seed, setting.partition(".")[2])
    rows = hub_rows if location.startswith(HUB) else file_rows
    return rows(location, setting)


def _evaluation_index(settings: PromptSettings, seed: int) -> EvaluationIndex | None:
    """Return the index of the named evaluation sets; None if contamination is not looked for."""
    if settings.decontaminate is None:
        return None
    index = EvaluationIndex(settings.ngram_words, settings.min_overlap)
    columns = settings.columns.model_copy(update={"reference": None})
    taken_whole = {"columns": columns, "multi_turn": "first", "system_message": "drop"}
    asked = settings.model_copy(update=taken_whole)
    for location in settings.decontaminate:
        before = len(index)
        shape: Shape | None = None
        for row in _rows(settings, location, "prompts.decontaminate", seed):
            shape = shape or shape_of(row, asked)
            problem = to_problem(row, shape, asked)
            if isinstance(problem, Problem) and isinstance(problem.prompt, str):
                index.add(problem.prompt, f"{location} at {row.where}")
        if len(index) == before:
            raise UserError(f"prompts.decontaminate={location} has no usable rows")
    return index


class _Loader:
    """Makes chunks of outcomes of rows."""

    def __init__(self, settings: PromptSettings, screen: Screen, tell: Tell) -> None:
        self._settings = settings
        self._screen = screen
        self._tell = tell

    def take(
        self, rows: Iterator[Row], split: Split, location: str, limit: int | None
    ) -> Iterator[Outcomes]:
        """Yield the outcomes of rows, in chunks, until `limit` prompts are made."""
        before = len(self._screen)
        made = self._made(rows, split, location)
        example = ""
        num_failures = 0
        for chunk in _chunks(made, limit):
            num_failures += len(chunk.failures)
            if chunk.failures and not example:
                example = f"; for example {chunk.failures[0].detail}"
            yield chunk
        if len(self._screen) == before:
            raise UserError(
                f"prompts.{split}={location} has no usable rows ({num_failures} unusable{example})"
            )

    def _made(self, rows: Iterator[Row], split: Split, location: str) -> Iterator[Outcomes]:
        """Yield the outcome of each row: a prompt, or a failure and what it shares with a test."""
        shape: Shape | None = None
        generated = location.startswith(GENERATED)
        settings = self._settings
        if generated:
            settings = settings.model_copy(update={"columns": ColumnSettings()})
        for row in rows:
            if shape is None:
                shape = "columns" if generated else shape_of(row, settings)
                if settings.shape == "auto" and not generated:
                    self._tell(f"prompts.{split}={location} read as prompts.shape={shape}")
            made = make_prompt(row, shape, settings, location, split)
            if isinstance(made, Unusable):
                yield Outcomes(failures=(_failure(row, split, made),))
            elif outcome := self._screened(made, row, generated=generated):
                yield outcome

    def _screened(self, prompt: Prompt, row: Row, *, generated: bool) -> Outcomes | None:
        """Return a prompt, or the failure that its likeness to others makes of it.

        None is a generated problem that was drawn before: small families repeat themselves.
        """
        repeated = self._screen.duplicate(prompt, row, refuse=not generated)
        if repeated is not None:
            failure = _failure(row, prompt.split, repeated)
            return None if generated else Outcomes(failures=(failure,))
        if match := self._screen.contamination(prompt):
            return _contaminated(prompt, row, match)
        if alike := self._screen.near_duplicate(prompt, row):
            return Outcomes(failures=(_failure(row, prompt.split, alike),))
        self._screen.take(prompt, row)
        return Outcomes((prompt,))


def _contaminated(prompt: Prompt, row: Row, match: Match) -> Outcomes:
    why = f"holds {match.share:.0%} of {match.evaluation} ('{match.run}')"
    failure = _failure(row, prompt.split, Unusable("contaminated", why))
    overlap = Overlap(
        failure.key, match.evaluation, match.share, match.num_runs, match.run, prompt.text
    )
    return Outcomes((overlap,), (failure,))


def _failure(row: Row, split: Split, unusable: Unusable) -> Failure:
    row_id = f"unusable:{split}:{row.where}"
    detail = f"{row.where}: {unusable.why}"
    return Failure(row_id, "prompts", unusable.reason, detail, permanent=True)


def _chunks(made: Iterator[Outcomes], limit: int | None) -> Iterator[Outcomes]:
    """Yield outcomes of rows in chunks until `limit` prompts are among them; take no row more."""
    left = limit
    while left is None or left > 0:
        chunk: list[Outcomes] = []
        num_prompts = num_characters = 0
        for one in islice(made, MAX_CHUNK_ROWS):
            chunk.append(one)
            for prompt in (r for r in one.records if isinstance(r, Prompt)):
                num_prompts += 1
                num_characters += len(prompt.text) + len(prompt.solution or "")
            if num_prompts == left or num_characters > _MAX_CHUNK_CHARACTERS:
                break
        if not chunk:
            return
        yield Outcomes(
            tuple(record for one in chunk for record in one.records),
            tuple(failure for one in chunk for failure in one.failures),
        )
        left = None if left is None else left - num_prompts
