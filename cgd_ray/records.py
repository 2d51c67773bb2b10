"""The records that flow through the platform, each with its Arrow schema beside it.

A record is one row of a stage's output. Rows that could not be made are `Failure` records, never
missing: for every stage, rows in = rows made + failures.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Protocol, Self, TypeVar

import pyarrow as pa

TOKEN_IDS = pa.list_(pa.int32())
MASK = pa.list_(pa.uint8())


class Record(Protocol):
    """What every record offers: a key that is unique in its stage, and an Arrow schema."""

    SCHEMA: ClassVar[pa.Schema]

    @property
    def key(self) -> str:
        """The identity by which readers take each row once."""
        ...


R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A problem as a user would ask it: x in the paper."""

    id: str  # content hash of the text, 16 hex digits
    text: str
    reference: str | None  # gold final answer, where the data has one: y
    solution: str | None  # gold worked solution, where the data has one
    source: str  # where it came from: a path or a generator's name
    split: Literal["train", "test"]

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
            pa.field("reference", pa.string()),
            pa.field("solution", pa.string()),
            pa.field("source", pa.string(), nullable=False),
            pa.field("split", pa.string(), nullable=False),
        ]
    )

    @property
    def key(self) -> str:
        """The prompt id."""
        return self.id


@dataclass(frozen=True, slots=True)
class Draft:
    """What the untrained student answered: y' in the paper."""

    id: str  # "<prompt id>/<index of the draft>"
    prompt_id: str
    text: str
    finish_reason: str  # "stop" or "length"
    num_tokens: int  # generated tokens
    seed: int  # of this row's sampling: the same row draws the same draft again

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("prompt_id", pa.string(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
            pa.field("finish_reason", pa.string(), nullable=False),
            pa.field("num_tokens", pa.int32(), nullable=False),
            pa.field("seed", pa.int64(), nullable=False),
        ]
    )

    @property
    def key(self) -> str:
        """The draft id."""
        return self.id


_TEACHER_FIELDS = [
    pa.field("draft_id", pa.string(), nullable=False),
    pa.field("text", pa.string(), nullable=False),
    pa.field("model", pa.string(), nullable=False),
    pa.field("template", pa.string(), nullable=False),
    pa.field("num_input_tokens", pa.int32(), nullable=False),
    pa.field("num_cached_tokens", pa.int32(), nullable=False),
    pa.field("num_output_tokens", pa.int32(), nullable=False),
]


@dataclass(frozen=True, slots=True)
class Critique:
    """The teacher's explanation of what is wrong, or right, in a draft: c in the paper."""

    draft_id: str
    text: str
    model: str  # the teacher that wrote it
    template: str  # version of the template that asked for it
    num_input_tokens: int  # as the teacher's API counts them
    num_cached_tokens: int  # share of the input that came from the provider's prompt cache
    num_output_tokens: int

    SCHEMA: ClassVar[pa.Schema] = pa.schema(_TEACHER_FIELDS)

    @property
    def key(self) -> str:
        """The id of the draft that it is about."""
        return self.draft_id


@dataclass(frozen=True, slots=True)
class Refinement:
    """The teacher's corrected answer, written with the critique in view: y^ in the paper."""

    draft_id: str
    text: str
    model: str
    template: str
    num_input_tokens: int
    num_cached_tokens: int
    num_output_tokens: int

    SCHEMA: ClassVar[pa.Schema] = pa.schema(_TEACHER_FIELDS)

    @property
    def key(self) -> str:
        """The id of the draft that it corrects."""
        return self.draft_id


@dataclass(frozen=True, slots=True)
class Failure:
    """A row that a stage could not make.

    Permanent ones (a refusal, an over-long prompt) are recorded and never tried again; transient
    ones (retries spent) are tried again when the stage is resumed.
    """

    row_id: str  # the key that the row would have had
    stage: str
    reason: str  # a short fixed word, for counting
    detail: str  # one line for a person
    permanent: bool

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("row_id", pa.string(), nullable=False),
            pa.field("stage", pa.string(), nullable=False),
            pa.field("reason", pa.string(), nullable=False),
            pa.field("detail", pa.string(), nullable=False),
            pa.field("permanent", pa.bool_(), nullable=False),
        ]
    )

    @property
    def key(self) -> str:
        """The key that the row would have had."""
        return self.row_id


@dataclass(frozen=True, slots=True)
class CuratedRow:
    """A whole chain, verified: what training may use, and what was rejected and why."""

    draft_id: str
    prompt_id: str
    draft_correct: bool | None  # None: the prompt has no reference
    refinement_correct: bool | None
    rejected: str | None  # the reason; None: the row is used
    masked_critique: str | None = None  # used instead of the teacher's, which gives the answer away

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("draft_id", pa.string(), nullable=False),
            pa.field("prompt_id", pa.string(), nullable=False),
            pa.field("draft_correct", pa.bool_()),
            pa.field("refinement_correct", pa.bool_()),
            pa.field("rejected", pa.string()),
            pa.field("masked_critique", pa.string()),
        ]
    )

    @property
    def key(self) -> str:
        """The draft id."""
        return self.draft_id


@dataclass(frozen=True, slots=True)
class Example:
    """One training document: token ids, and which of them carry loss."""

    id: str  # "<draft id>#<objective>"
    objective: str  # a key of `examples.objectives.OBJECTIVES`
    input_ids: tuple[int, ...]  # T tokens, context then target
    loss_mask: tuple[int, ...]  # T flags: 1 where the token is a target
    critique_transform: str = "none"  # how the critique was spoilt, for an ablation
    num_cut: int = 0  # tokens left out because the whole was too long

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("objective", pa.string(), nullable=False),
            pa.field("input_ids", TOKEN_IDS, nullable=False),
            pa.field("loss_mask", MASK, nullable=False),
            pa.field("critique_transform", pa.string(), nullable=False),
            pa.field("num_cut", pa.int32(), nullable=False),
        ]
    )

    @property
    def key(self) -> str:
        """The example id."""
        return self.id


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Several examples laid end to end in one row of at most `packing.sequence_length` tokens.

    Positions restart at every document and no token attends across documents; both follow from
    `document_lengths`.
    """

    index: int  # place in the packed data set
    example_ids: tuple[str, ...]  # D documents
    document_lengths: tuple[int, ...]  # D lengths, adding up to T
    input_ids: tuple[int, ...]  # T tokens
    loss_mask: tuple[int, ...]  # T flags

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("index", pa.int64(), nullable=False),
            pa.field("example_ids", pa.list_(pa.string()), nullable=False),
            pa.field("document_lengths", TOKEN_IDS, nullable=False),
            pa.field("input_ids", TOKEN_IDS, nullable=False),
            pa.field("loss_mask", MASK, nullable=False),
        ]
    )
    # Told by the commits: training plans its steps without reading a token.
    COMMITTED: ClassVar[tuple[str, ...]] = ("num_tokens", "num_targets", "num_pairs")

    @property
    def key(self) -> str:
        """The index, as text."""
        return str(self.index)

    @property
    def num_tokens(self) -> int:
        """T."""
        return len(self.input_ids)

    @property
    def num_targets(self) -> int:
        """Tokens that carry loss."""
        return sum(self.loss_mask)

    @property
    def num_pairs(self) -> int:
        """Pairs of tokens in one document, which the cost of attention is proportional to."""
        return sum(length * length for length in self.document_lengths)


@dataclass(frozen=True, slots=True)
class StateFile:
    """One file of a checkpoint."""

    name: str  # below the checkpoint's folder
    num_bytes: int
    sha256: str  # hex
    pieces: tuple[tuple[str, int, int], ...]  # (parameter, first element, elements) that it holds


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A saved state of training: it exists when its manifest does."""

    folder: str  # key prefix in the store
    step: int  # optimiser steps taken
    optimizer_step: float  # the optimiser's own count
    num_workers: int  # that wrote it
    made_with: dict[str, Any]  # data, student, seed and settings that the state follows from
    files: tuple[StateFile, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """One answer of one served model to one problem, graded: a row of the transcripts."""

    model: str  # "base" or "student"
    prompt_id: str  # unique in its task
    response: str
    extracted: str | None  # the final answer found in the response
    correct: bool
    reason: str  # how the verdict was reached
    num_tokens: int  # generated by the model, all turns
    task: str = "prompts.test"  # as `evaluate.tasks` writes it
    method: str = "one_pass"  # a key of `evaluation.methods.NUM_ROUNDS`
    sample: int = 0  # which of several answers to the problem
    setup: str = ""  # key of the `evaluation.setup.Setup` under which it was made
    question: str = ""  # the problem, before the template
    gold: str = ""  # the reference; "" where instructions or tests are checked
    turns: tuple[str, ...] = ()  # what was written before the response, in order
    num_teacher_tokens: int = 0  # generated by the teacher
    finish_reason: str = ""  # "stop" or "length"

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("model", pa.string(), nullable=False),
            pa.field("prompt_id", pa.string(), nullable=False),
            pa.field("response", pa.string(), nullable=False),
            pa.field("extracted", pa.string()),
            pa.field("correct", pa.bool_(), nullable=False),
            pa.field("reason", pa.string(), nullable=False),
            pa.field("num_tokens", pa.int32(), nullable=False),
            pa.field("task", pa.string(), nullable=False),
            pa.field("method", pa.string(), nullable=False),
            pa.field("sample", pa.int32(), nullable=False),
            pa.field("setup", pa.string(), nullable=False),
            pa.field("question", pa.string(), nullable=False),
            pa.field("gold", pa.string(), nullable=False),
            pa.field("turns", pa.list_(pa.string()), nullable=False),
            pa.field("num_teacher_tokens", pa.int32(), nullable=False),
            pa.field("finish_reason", pa.string(), nullable=False),
        ]
    )

    @property
    def key(self) -> str:
        """What was asked: setup, model, problem and sample."""
        return f"{self.setup}/{self.model}/{self.prompt_id}/{self.sample}"


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What a stage made of some rows: records of its kinds, and failures."""

    records: tuple[Record, ...] = ()
    failures: tuple[Failure, ...] = ()

    def __add__(self, other: Self) -> "Outcomes":
        """Join two sets of outcomes, in order."""
        return Outcomes(self.records + other.records, self.failures + other.failures)


def to_table(records: Iterable[R], kind: type[R]) -> pa.Table:
    """Return the records as an Arrow table with the schema of their kind.

    Raises:
        pyarrow.ArrowInvalid: a value does not fit its column.
    """
    names = kind.SCHEMA.names
    rows = [{name: getattr(record, name) for name in names} for record in records]
    return pa.Table.from_pylist(rows, schema=kind.SCHEMA)


def from_rows(rows: Iterable[dict[str, Any]], kind: type[R]) -> list[R]:
    """Return records from plain rows (lists become tuples; columns of other names are ignored)."""
    names = [f.name for f in fields(kind)]  # pyright: ignore[reportArgumentType]
    return [kind(**{name: _frozen(row[name]) for name in names}) for row in rows]


def from_table(table: pa.Table, kind: type[R]) -> list[R]:
    """Return the records of an Arrow table."""
    return from_rows(table.to_pylist(), kind)


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
