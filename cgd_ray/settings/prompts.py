"""The problems: where they come from and which are taken."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cgd_ray.settings.base import Section


class ColumnSettings(Section):
    """Names of the columns of a prompt file."""

    prompt: str = "prompt"
    """The problem, as a user would ask it."""
    reference: str | None = "answer"
    """The gold final answer; None: the data has none."""
    solution: str | None = "solution"
    """The gold worked solution; None: the data has none. May be absent from the file."""


class PromptSettings(Section):
    """The problems."""

    train: str
    """A jsonl or parquet file, a folder or glob of them, local or s3://, or
    `reasoning-gym:<family>`."""
    test: str | None = None
    """The same for evaluation; None: the training source, with prompts that training lacks
    (generated sources only)."""
    num_train: int | None = Field(default=None, ge=1)
    """Take so many training prompts; None: all of a file."""
    num_test: int | None = Field(default=None, ge=1)
    """Take so many test prompts; None: all of a file."""
    columns: ColumnSettings = ColumnSettings()
    """Names of the columns of a prompt file."""
    options: dict[str, int | float | str | bool] = Field(default_factory=dict)
    """Options of the generator, such as `min_terms`."""
    on_duplicate: Literal["error", "first"] = "error"
    """Two rows with the same prompt text: refuse the file, or keep the first."""

    @model_validator(mode="after")
    def _generated_sources_need_a_number(self) -> Self:
        if self.train.startswith("reasoning-gym:") and self.num_train is None:
            raise ValueError("prompts.num_train must be set for a generated source")
        if (self.test or self.train).startswith("reasoning-gym:") and self.num_test is None:
            raise ValueError("prompts.num_test must be set for a generated source")
        if self.test is None and not self.train.startswith("reasoning-gym:"):
            raise ValueError("prompts.test must name a file when prompts.train does")
        return self
