"""A row of a prompt source as it was read, before anything is made of it."""

from dataclasses import dataclass
from typing import Any, Literal

Split = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class Row:
    """One row, and where it stands."""

    file: str  # the file's key, or the generator's name
    number: int  # line or row, from 1; index of a generated problem
    values: dict[str, Any]  # by column

    @property
    def where(self) -> str:
        """The place, as messages name it."""
        return f"{self.file}:{self.number}"
