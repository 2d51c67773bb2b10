"""What a row must be to become a prompt, and how it must differ from the rows before it."""

from cgd_ray.curation.decontamination import EvaluationIndex, Match
from cgd_ray.curation.duplicates import NearDuplicates
from cgd_ray.errors import UserError
from cgd_ray.identity import content_id
from cgd_ray.prompts.rows import Row, Split
from cgd_ray.prompts.seen import SeenIds
from cgd_ray.prompts.shapes import Problem, Shape, Unusable, to_problem
from cgd_ray.records import Prompt
from cgd_ray.settings import PromptSettings


def make_prompt(
    row: Row, shape: Shape, settings: PromptSettings, source: str, split: Split
) -> Prompt | Unusable:
    """Return the prompt of a row, or why it cannot be used.

    Raises:
        UserError: the row lacks a column.
    """
    problem = to_problem(row, shape, settings)
    if isinstance(problem, Unusable):
        return problem
    if fault := _fault(problem, settings, split):
        return fault
    text = str(problem.prompt).strip()
    return Prompt(
        id=content_id(text),
        text=text,
        reference=_text_or_none(problem.reference),
        solution=_text_or_none(problem.solution),
        source=source,
        split=split,
    )


def _fault(problem: Problem, settings: PromptSettings, split: Split) -> Unusable | None:
    text = problem.prompt
    if not isinstance(text, str) or not text.strip():
        empty = text is None or isinstance(text, str)
        return Unusable("empty_prompt", f"the prompt is {'empty' if empty else 'not text'}")
    if len(text) > settings.max_characters:
        limit = f"prompts.max_characters={settings.max_characters}"
        return Unusable("too_long", f"{len(text)} characters are more than {limit}")
    for field in ("prompt", "reference", "solution"):
        if _has_bad_characters(_text_or_none(getattr(problem, field)) or ""):
            return Unusable("bad_text", f"the {field} holds NUL or lone surrogate characters")
    # Data said to have no references can be drafted and taught from; evaluation will refuse it.
    graded = split == "test" and settings.columns.reference is not None
    if graded and _text_or_none(problem.reference) is None:
        why = "a test prompt needs a reference (prompts.columns.reference)"
        return Unusable("no_reference", why)
    return None


class Screen:
    """Compares each prompt with those taken before and with the evaluation prompts."""

    def __init__(self, settings: PromptSettings, evaluation: EvaluationIndex | None) -> None:
        self._settings = settings
        self._evaluation = evaluation
        self._seen = SeenIds()
        alike = settings.near_duplicates
        self._alike = None if alike is None else NearDuplicates(alike)

    def __len__(self) -> int:
        """Return the number of prompts taken."""
        return len(self._seen)

    def duplicate(self, prompt: Prompt, row: Row, *, refuse: bool) -> Unusable | None:
        """Return why a prompt repeats an earlier one.

        Raises:
            UserError: `refuse` is set and `prompts.on_duplicate` is error: a file that repeats
                itself may hide a mistake.
        """
        place = self._seen.place(prompt.id)
        if place is None:
            return None
        if refuse and self._settings.on_duplicate == "error":
            raise UserError(
                f"{row.where} has the same prompt as {place} (id {prompt.id}): remove one, or set "
                "prompts.on_duplicate=first"
            )
        return Unusable("duplicate", f"the same prompt as {place}")

    def contamination(self, prompt: Prompt) -> Match | None:
        """Return the evaluation prompt that a training prompt holds too much of."""
        if self._evaluation is None or prompt.split == "test":
            return None
        return self._evaluation.find(prompt.text)

    def near_duplicate(self, prompt: Prompt, row: Row) -> Unusable | None:
        """Return why a training prompt is too like an earlier prompt. The test is never thinned."""
        if self._alike is None:
            return None
        if prompt.split == "test":
            self._alike.keep(prompt.text, row.where)
            return None
        place = self._alike.find_or_keep(prompt.text, row.where)
        return None if place is None else Unusable("near_duplicate", f"nearly the same as {place}")

    def take(self, prompt: Prompt, row: Row) -> None:
        """Remember a prompt that is used."""
        self._seen.add(prompt.id, row.file, row.number)
        if self._evaluation is not None and prompt.split == "test":
            self._evaluation.add(prompt.text, f"prompts.test at {row.where}")


def _has_bad_characters(text: str) -> bool:
    return not text.isprintable() and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text)


def _text_or_none(value: object) -> str | None:
    text = "" if value is None else str(value).strip()
    return text or None
