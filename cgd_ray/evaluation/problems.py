"""Rows of an evaluation set -> problems: what is asked, what is right, and how that is checked."""

import hashlib
import heapq
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from string import ascii_uppercase
from typing import Any

from cgd_ray.errors import UserError
from cgd_ray.evaluation.tasks import Hub, Task
from cgd_ray.prompts.rows import Row
from cgd_ray.records import Prompt

Values = Mapping[str, Any]
_FILE = Hub("", "prompt", "answer")  # the columns of a file
_CHECKED_BY_META = {
    "code": ("entry_point", "test"),
    "instructions": ("instruction_id_list", "kwargs"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a task."""

    id: str  # unique in its task
    question: str
    gold: str  # the reference; "" where instructions are checked instead
    kind: str  # of grader: one of `grading.KINDS`, "instructions" or "code"
    template: str  # a key of `templates.TEMPLATES`
    relative_tolerance: float = 0.0  # of the data set, as a share of the gold value
    checks: str = ""  # JSON: the tests of code, or the instructions to follow


@dataclass(frozen=True, slots=True)
class ProblemSet:
    """The problems of a task that are asked, in order of their ids."""

    problems: tuple[Problem, ...]
    source: str  # where they come from
    sha256: str  # of their contents
    num_left_out: int = 0  # rows that cannot be asked as text


def make_problems(task: Task, rows: Iterable[Row], source: str, hub: Hub | None) -> ProblemSet:
    """Return the problems of a task's rows.

    Args:
        task: how they are read.
        rows: of its data.
        source: where they come from, for messages.
        hub: names of their columns; None: those of a file.

    Raises:
        UserError: a row lacks a column, repeats an id or has no reference; or there are no rows.
    """
    found: dict[str, Problem] = {}
    num_left_out = 0
    for row in rows:
        values = _values(row, hub or _FILE, source)
        if task.leaves_out(values["meta"]):
            num_left_out += 1
            continue
        problem = _problem(task, values, row, source)
        if problem.id in found:
            raise UserError(f"{source}: {row.where} repeats the id '{problem.id}'")
        found[problem.id] = problem
    return _problem_set(found.values(), source, num_left_out)


def own_problems(prompts: Iterable[Prompt], source: str) -> ProblemSet:
    """Return a run's own test prompts as problems.

    Raises:
        UserError: a prompt has no reference, or there are none.
    """
    found: list[Problem] = []
    for prompt in prompts:
        if not (prompt.reference or "").strip():
            raise UserError(
                f"test prompt {prompt.id} has no reference to grade against: set "
                "prompts.columns.reference, or name other tasks in evaluate.tasks"
            )
        found.append(Problem(prompt.id, prompt.text, prompt.reference or "", "math", "plain/v1"))
    return _problem_set(found, source)


def sample_problems(problems: ProblemSet, num_problems: int | None) -> ProblemSet:
    """Return so many of the problems: those of the smallest hashes, the same ones each time."""
    if num_problems is None or num_problems >= len(problems.problems):
        return problems
    chosen = heapq.nsmallest(num_problems, problems.problems, key=lambda p: _digest(p.id))
    return _problem_set(chosen, problems.source, problems.num_left_out)


def _problem_set(problems: Iterable[Problem], source: str, num_left_out: int = 0) -> ProblemSet:
    ordered = tuple(sorted(problems, key=lambda p: p.id))
    if not ordered:
        raise UserError(f"{source} has no problems to ask")
    text = json.dumps([asdict(p) for p in ordered], sort_keys=True)
    return ProblemSet(ordered, source, _digest(text), num_left_out)


def _values(row: Row, columns: Hub, source: str) -> dict[str, Any]:
    """Return a row as `id`, `prompt`, `answer` and `meta`."""
    for column in filter(None, (columns.prompt, columns.answer)):
        if row.values.get(column) is None:
            raise UserError(f"{source}: {row.where} has no column '{column}'")
    values = dict(row.values)
    meta = values.get("meta")
    if columns is not _FILE:
        meta = {k: v for k, v in values.items() if k not in (columns.prompt, columns.answer)}
    answer = str(values[columns.answer]) if columns.answer else ""
    return {
        "id": str(values.get("id") or f"{row.file}/{row.number}"),
        "prompt": str(values[columns.prompt]),
        "answer": answer.rpartition("####")[2].strip() if columns.solved else answer,
        "meta": json.loads(meta) if isinstance(meta, str) else meta or {},
    }


def _problem(task: Task, values: dict[str, Any], row: Row, source: str) -> Problem:
    meta = values["meta"]
    if task.name == "truthfulqa":
        values = as_multiple_choice(values)
    elif isinstance(options := meta.get("options"), list) and "(A)" not in values["prompt"]:
        values = {**values, "prompt": _with_options(values["prompt"], options)}
    kind = task.kind(values["answer"], meta)
    if not values["answer"].strip() and kind not in _CHECKED_BY_META:
        raise UserError(f"{source}: {row.where} has an empty answer: nothing to grade against")
    return Problem(
        id=values["id"],
        question=values["prompt"],
        gold=values["answer"],
        kind=kind,
        template=task.template,
        relative_tolerance=task.tolerance(values["answer"], meta),
        checks=_checks(values, _CHECKED_BY_META.get(kind, ())),
    )


def as_multiple_choice(values: Values) -> dict[str, Any]:
    """Return a TruthfulQA row as MC1: its best answer among the wrong ones, lettered.

    The order is that of hashes of id and option, so it is the same each time and tells nothing.
    """
    best = values["answer"]
    options = sorted(
        dict.fromkeys([best, *values["meta"]["incorrect_answers"]]),
        key=lambda option: _digest(f"{values['id']}/{option}"),
    )
    letter = ascii_uppercase[options.index(best)]
    return {**values, "prompt": _with_options(values["prompt"], options), "answer": letter}


def _with_options(question: str, options: Iterable[str]) -> str:
    lettered = [f"({ascii_uppercase[i]}) {text}" for i, text in enumerate(options)]
    return "\n".join([question, "Options:", *lettered])


def _checks(values: Values, names: Iterable[str]) -> str:
    chosen = {name: values["meta"][name] for name in names}
    return json.dumps({"prompt": values["prompt"], **chosen}, sort_keys=True) if chosen else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
