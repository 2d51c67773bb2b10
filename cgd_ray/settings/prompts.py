"""The problems: where they come from and which are taken."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cgd_ray.settings.base import Section

_GENERATED = "reasoning-gym:"
_DEFAULT_CONVERSATION = {"messages": "messages", "sharegpt": "conversations"}


class ColumnSettings(Section):
    """Names of the columns of a prompt file."""

    prompt: str = "prompt"
    """The problem, as a user would ask it."""
    reference: str | None = "answer"
    """The gold final answer; None: the data has none. May be absent in shapes other than
    `columns`."""
    solution: str | None = "solution"
    """The gold worked solution; None: the data has none. May be absent from the file."""
    conversation: str | None = None
    """The list of turns of the shapes `messages` and `sharegpt`; None: `messages` and
    `conversations`."""


class PromptSettings(Section):
    """The problems."""

    train: str
    """A jsonl, parquet, Arrow or CSV file, a folder or glob of them, local or s3://, a data set of
    the Hugging Face hub as `hf:owner/name?config=..&split=..&revision=..`, or
    `reasoning-gym:<family>`."""
    test: str | None = None
    """The same for evaluation; None: the training source, with prompts that training lacks
    (generated sources only)."""
    num_train: int | None = Field(default=None, ge=1)
    """Take so many training prompts; None: all of a file."""
    num_test: int | None = Field(default=None, ge=1)
    """Take so many test prompts; None: all of a file."""
    shape: Literal["auto", "columns", "messages", "sharegpt", "alpaca"] = "auto"
    """What a row is: text columns, a chat (`role`, `content`), a ShareGPT chat (`from`, `value`),
    or Alpaca's `instruction`, `input` and `output`. auto: as the names in a source's first row
    say."""
    columns: ColumnSettings = ColumnSettings()
    """Names of the columns of a prompt file."""
    system_message: Literal["fail", "drop", "prepend"] = "fail"
    """A chat that has a system message: a failure row, or the message is left out, or put before
    the prompt."""
    multi_turn: Literal["fail", "first"] = "fail"
    """A chat with several user turns: a failure row, or its first question and answer."""
    options: dict[str, int | float | str | bool] = Field(default_factory=dict)
    """Options of the generator, such as `min_terms`."""
    on_duplicate: Literal["error", "first"] = "error"
    """Two rows with the same prompt text: refuse the file, or keep the first."""
    max_characters: int = Field(default=200_000, ge=1)
    """Longer prompts are failure rows."""
    near_duplicates: float | None = Field(default=None, ge=0.5, le=1)
    """Training prompts so alike an earlier prompt are failure rows: Jaccard similarity of their
    word triples, as MinHash estimates it. None: not looked for; 0.8 is common."""
    decontaminate: tuple[str, ...] | None = None
    """Evaluation sets, as `test` names them: training prompts that hold their text are failure
    rows, and so are those that hold the test prompts'. [] : the test prompts alone; None: only
    equal prompts are kept apart."""
    ngram_words: int = Field(default=13, ge=2)
    """Words of a run that two prompts share, for `decontaminate`; a shorter evaluation prompt must
    be there as a whole."""
    min_overlap: float = Field(default=0.5, gt=0, le=1)
    """Share of an evaluation prompt's runs of words that makes a training prompt contaminated."""

    @property
    def splits_one_file(self) -> bool:
        """Whether training and test are the head and tail of the same files."""
        # Of a hub data set, each setting reads the split of its own name if none is named.
        own_splits = self.train.startswith("hf:") and "split=" not in self.train
        drawn = self.train.startswith(_GENERATED)
        return self.test == self.train and not drawn and not own_splits

    @model_validator(mode="after")
    def _generated_sources_need_a_number(self) -> Self:
        if self.train.startswith(_GENERATED) and self.num_train is None:
            raise ValueError("prompts.num_train must be set for a generated source")
        if (self.test or self.train).startswith(_GENERATED) and self.num_test is None:
            raise ValueError("prompts.num_test must be set for a generated source")
        if self.test is None and not self.train.startswith(_GENERATED):
            raise ValueError("prompts.test must name a file when prompts.train does")
        return self

    @model_validator(mode="after")
    def _one_file_is_cut_before_it_is_compared(self) -> Self:
        if not self.splits_one_file:
            return self
        if self.num_train is None:
            raise ValueError(
                "prompts.num_train must be set when prompts.test is the same source: it says how "
                "much of it trains"
            )
        for name in ("decontaminate", "near_duplicates"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"prompts.{name} compares training with test prompts that are read first: let "
                    "prompts.test be another source than prompts.train"
                )
        return self

    def conversation_column(self, shape: str) -> str:
        """Return the column that holds the turns of a chat."""
        return self.columns.conversation or _DEFAULT_CONVERSATION[shape]
