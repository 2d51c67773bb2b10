"""What a task's scores mean: the record that `cgd compare` holds against another's."""

from dataclasses import asdict, dataclass
from typing import ClassVar

import pyarrow as pa

from cgd_ray.evaluation.methods import ONE_PASS, SELF_REFINE, TEACHER_CRITIQUE
from cgd_ray.evaluation.problems import ProblemSet
from cgd_ray.evaluation.tasks import TaskSpec
from cgd_ray.examples import objectives
from cgd_ray.identity import fingerprint
from cgd_ray.settings import EvaluateSettings
from cgd_ray.teacher import critique

GRADER = "grading/v1"


@dataclass(frozen=True, slots=True)
class Setup:
    """What decides the meaning of a task's scores: two may be compared if theirs is equal."""

    id: str  # hash of all fields below
    task: str  # as `evaluate.tasks` writes it
    method: str  # a key of `evaluation.methods.NUM_ROUNDS`
    metric: str
    source: str  # where the problems come from
    data_sha256: str  # of the problems, 16 hex digits
    num_problems: int
    num_samples: int  # answers to each problem
    template: str  # of the question, and of the rounds after it
    grader: str  # version of the rules of extraction and comparison
    temperature: float
    top_p: float
    max_tokens: int
    seed: int

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("task", pa.string(), nullable=False),
            pa.field("method", pa.string(), nullable=False),
            pa.field("metric", pa.string(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("data_sha256", pa.string(), nullable=False),
            pa.field("num_problems", pa.int32(), nullable=False),
            pa.field("num_samples", pa.int32(), nullable=False),
            pa.field("template", pa.string(), nullable=False),
            pa.field("grader", pa.string(), nullable=False),
            pa.field("temperature", pa.float64(), nullable=False),
            pa.field("top_p", pa.float64(), nullable=False),
            pa.field("max_tokens", pa.int32(), nullable=False),
            pa.field("seed", pa.int64(), nullable=False),
        ]
    )

    @property
    def key(self) -> str:
        """The hash."""
        return self.id


def make_setup(
    spec: TaskSpec, method: str, problems: ProblemSet, settings: EvaluateSettings, seed: int
) -> Setup:
    """Return the record of everything that decides what a task's scores mean."""
    templates = sorted({problem.template for problem in problems.problems})
    rounds = {
        ONE_PASS: (),
        TEACHER_CRITIQUE: (critique.TEMPLATE, objectives.TEMPLATE),  # rewritten as in training
    }.get(method, (SELF_REFINE,))
    sampled = settings.temperature > 0
    setup = Setup(
        id="",
        task=spec.text,
        method=method,
        metric=spec.task.metric,
        source=problems.source,
        data_sha256=problems.sha256,
        num_problems=len(problems.problems),
        num_samples=spec.num_samples,
        template=" + ".join((*templates, *rounds)),
        grader=GRADER,
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_tokens=settings.max_tokens,
        seed=seed if sampled else 0,  # nothing is drawn at temperature 0
    )
    # Not the place of the data: the same problems from another folder are the same.
    parts = {k: v for k, v in asdict(setup).items() if k not in ("id", "source")}
    return Setup(**{**asdict(setup), "id": fingerprint(parts)})
