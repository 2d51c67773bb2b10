"""The contamination report's record."""

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Overlap:
    """A row of the contamination report: what a training row shares with an evaluation row."""

    row_id: str  # of the training row's failure
    evaluation: str  # source and place of the evaluation row that it shares most with
    share: float  # of the evaluation row's runs of words, by weight; 1: all of them
    num_runs: int  # shared runs of words
    run: str  # the first of them, normalised
    text: str  # the training prompt

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("row_id", pa.string(), nullable=False),
            pa.field("evaluation", pa.string(), nullable=False),
            pa.field("share", pa.float64(), nullable=False),
            pa.field("num_runs", pa.int32(), nullable=False),
            pa.field("run", pa.string(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
        ]
    )

    @property
    def key(self) -> str:
        """The training row's."""
        return self.row_id
