"""The evaluation tasks by the names that people use, as one table, and how they are asked for.

`gsm8k` is a task, `gsm8k:16` samples 16 answers a problem, `gsm8k@DATA` reads other data in its
way, a bare file is read by the task whose folder it stands in, and `reasoning-gym:FAMILY` draws
problems. Data in files have the columns `id, prompt, answer, meta`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from cgd_ray.evaluation.choices import is_choice, is_number, is_truth
from cgd_ray.prompts.locations import GENERATED, HUB

OWN = "prompts.test"  # the run's own test prompts, asked as they stand
_SAMPLES = re.compile(r"(.+?):(\d{1,6})")
_THEOREMQA_TOLERANCE = 0.04  # of its authors, for decimals; integers must be equal

KindOf = Callable[[str, Mapping[str, Any]], str]  # gold answer, meta -> kind of grader


@dataclass(frozen=True, slots=True)
class Hub:
    """A data set of the Hugging Face hub, and its columns; the others are the row's meta."""

    location: str
    prompt: str
    answer: str | None  # None: there is none, the row's meta says what to check
    solved: bool = False  # the answer stands behind `####` at the end of a solution


@dataclass(frozen=True, slots=True)
class Task:
    """How a data set is asked and graded."""

    name: str
    folders: tuple[str, ...]  # below evaluate.data_dir: the first that is there; "a+b": both
    template: str  # a key of `templates.TEMPLATES`
    kind: KindOf
    hub: Hub | None = None
    metric: str = "accuracy"
    tolerance: Callable[[str, Mapping[str, Any]], float] = lambda _gold, _meta: 0.0
    leaves_out: Callable[[Mapping[str, Any]], bool] = lambda _: False


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What one entry of `evaluate.tasks` asks for."""

    text: str  # as the user wrote it
    task: Task
    location: str | None  # where the data is; None: as the task's name says
    num_samples: int  # answers to each problem


def _always(kind: str) -> KindOf:
    return lambda _gold, _meta: kind


def kind_of_gold(gold: str, meta: Mapping[str, Any], otherwise: str = "math") -> str:
    """Return the grader that a reference asks for, by what it and its row look like."""
    if "instruction_id_list" in meta:
        return "instructions"
    if "entry_point" in meta and "test" in meta:
        return "code"
    if is_choice(gold):
        return "choice"
    if is_truth(gold):
        return "bool"
    return "math" if is_number(gold) else otherwise


def _bbh_kind(gold: str, meta: Mapping[str, Any]) -> str:
    return kind_of_gold(gold, meta, otherwise="exact")


def _theoremqa_kind(_gold: str, meta: Mapping[str, Any]) -> str:
    return {"bool": "bool", "option": "choice"}.get(meta.get("answer_type", ""), "math")


def _theoremqa_tolerance(_gold: str, meta: Mapping[str, Any]) -> float:
    return _THEOREMQA_TOLERANCE if "float" in meta.get("answer_type", "") else 0.0


def _olympiad_tolerance(gold: str, meta: Mapping[str, Any]) -> float:
    error = meta.get("error")  # absolute, in the unit of the answer
    return abs(float(error) / float(gold)) if error and float(gold) else 0.0


def _math(name: str, *folders: str, hub: Hub | None = None) -> Task:
    return Task(name, folders or (name,), "boxed/v1", _always("math"), hub)


_ALL = (
    _math("gsm8k", hub=Hub("hf:openai/gsm8k?config=main&split=test", "question", "answer", True)),
    _math("math"),
    _math(
        "math_500",
        "math-500",
        "math-500-dev+math-500-heldout",
        "math-500-dev",
        "math-500-heldout",
        hub=Hub("hf:HuggingFaceH4/MATH-500?split=test", "problem", "answer"),
    ),
    _math("amc23", hub=Hub("hf:math-ai/amc23?split=test", "question", "answer")),
    _math("aime24", hub=Hub("hf:HuggingFaceH4/aime_2024?split=train", "problem", "answer")),
    _math("aime25", hub=Hub("hf:math-ai/aime25?split=test", "problem", "answer")),
    _math("minerva_math", hub=Hub("hf:math-ai/minervamath?split=test", "question", "answer")),
    replace(_math("olympiadbench"), tolerance=_olympiad_tolerance),
    Task(
        "theoremqa",
        ("theoremqa",),
        "boxed/v1",
        _theoremqa_kind,
        tolerance=_theoremqa_tolerance,
        leaves_out=lambda meta: bool(meta.get("needs_picture")),
    ),
    Task("gpqa_diamond", ("gpqa-diamond",), "letter/v1", _always("choice")),
    Task(
        "mmlu_pro",
        ("mmlu-pro", "mmlu-pro-sample"),
        "letter/v1",
        _always("choice"),
        Hub("hf:TIGER-Lab/MMLU-Pro?split=test", "question", "answer"),
    ),
    Task("bbh", ("bbh",), "answer/v1", _bbh_kind),
    Task("truthfulqa", ("truthfulqa",), "letter/v1", _always("choice"), metric="MC1"),
    Task("musr", ("musr", "musr-sample"), "option_number/v1", _always("choice")),
    Task(
        "ifeval",
        ("ifeval",),
        "plain/v1",
        _always("instructions"),
        Hub("hf:google/IFEval?split=train", "prompt", None),
        metric="prompt-level strict accuracy",
    ),
    Task(
        "humaneval",
        ("humaneval",),
        "code/v1",
        _always("code"),
        Hub("hf:openai/openai_humaneval?split=test", "prompt", "canonical_solution"),
        metric="pass@1",
    ),
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}
_OWN_TASK = Task(OWN, (), "plain/v1", _always("math"))
_UNNAMED = Task("file", (), "boxed/v1", kind_of_gold)


def parse_task(text: str) -> TaskSpec:
    """Return what an entry of `evaluate.tasks` asks for.

    Raises:
        ValueError: it names no task and no data.
    """
    whole, num_samples = text.strip(), 1
    if sampled := _SAMPLES.fullmatch(whole):
        whole, num_samples = sampled[1], int(sampled[2])
    if num_samples < 1:
        raise ValueError(f"evaluate.tasks: '{text}' asks for no answers: set 1 or more after ':'")
    name, at, location = whole.partition("@")
    if at and name in TASKS and location:
        return TaskSpec(text, TASKS[name], location, num_samples)
    if whole in TASKS:
        return TaskSpec(text, TASKS[whole], None, num_samples)
    if whole == OWN:
        return TaskSpec(text, _OWN_TASK, None, num_samples)
    if whole.startswith((GENERATED, HUB)) or _is_path(whole):
        return TaskSpec(text, _task_of(whole), whole, num_samples)
    known = ", ".join((OWN, *TASKS))
    raise ValueError(
        f"evaluate.tasks: '{text}' is no task ({known}), no file of problems and no "
        f"'{GENERATED}FAMILY'"
    )


def _is_path(text: str) -> bool:
    return "/" in text or text.endswith((".jsonl", ".jsonl.gz", ".parquet", ".csv", ".arrow"))


def _task_of(location: str) -> Task:
    """Return the task that a location's folder belongs to; one that looks at the gold if none."""
    parts = set(PurePosixPath(location).parts)
    for task in _ALL:
        if parts & {part for folder in task.folders for part in folder.split("+")}:
            return task
    return _UNNAMED
