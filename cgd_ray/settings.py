"""All settings: one TOML file and dotted overrides (`train.learning_rate=1e-5`), nothing else.

Defaults live here only. An unknown key is refused; the string under a field is its documentation.
"""

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cgd_ray.errors import UserError

Objective = Literal["sft", "distilled_sft", "cft", "cgd"]
EMBEDDED_STUDENT = "embedded:smollm2-135m-instruct"


class Section(BaseModel):
    """Frozen settings that refuse unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class RunSettings(Section):
    """Where a run lives."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Name of the run, used in titles and in the served model's id."""
    root: str
    """Where artefacts are kept: a folder or `s3://bucket/prefix`."""
    work_dir: str = ".cgd"
    """Local folder for caches, logs, the report and the data of servers that the run starts."""
    seed: int = 1
    """Seed of everything that is drawn: prompts, drafts, data order, bootstrap."""
    num_cpus: int | None = Field(default=None, ge=1)
    """Logical CPUs of a local Ray; None takes the machine's, and at least 8, because most of our
    actors wait rather than compute."""


class LocalSettings(Section):
    """Servers that the run starts on this machine and stops again: nothing to install or pay."""

    s3_server: bool = False
    """Start a SeaweedFS S3 server (data under `run.work_dir`) and use it for `run.root`."""
    tutor: bool = False
    """Start the tutor, a teacher that solves arithmetic exactly, and use it as the teacher."""
    tutor_reveal: Literal["none", "step", "answer"] = "none"
    """How much the tutor's critique gives away: nothing, the wrong step's result, the answer."""


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
    options: dict[str, int | float | str | bool] = {}
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


class StudentSettings(Section):
    """The model that drafts and is then fine-tuned."""

    model: str = EMBEDDED_STUDENT
    """A Hugging Face id, a local folder, or the embedded SmolLM2-135M-Instruct."""
    max_model_len: int = Field(default=2048, ge=64)
    """Longest prompt + answer in tokens, for sampling and serving."""
    num_parameters: float | None = Field(default=None, gt=0)
    """Number of weights, for the arithmetic of `--dry-run` only."""


class SamplingSettings(Section):
    """Drafts: the student's own answers."""

    engine: Literal["vllm", "echo"] = "vllm"
    """`echo` answers with the prompt itself: for tests of the plumbing without a model."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """What the engine runs on."""
    num_drafts: int = Field(default=1, ge=1, le=64)
    """Drafts a prompt."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    """Sampling temperature; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling: the smallest set of tokens with this much probability."""
    max_tokens: int = Field(default=512, ge=1)
    """Longest draft in tokens; longer ones are kept, cut off, as the student's own failing."""
    min_replicas: int = Field(default=1, ge=1)
    """Engines that are always up."""
    max_replicas: int = Field(default=1, ge=1)
    """Engines that the actor pool may grow to."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs that one engine spreads a layer over."""
    rows_per_request: int = Field(default=64, ge=1)
    """Rows that one engine call takes from Ray Data."""
    kv_cache_gib: int = Field(default=2, ge=1)
    """Memory for the key-value cache of a CPU engine, in GiB."""

    @model_validator(mode="after")
    def _pool_can_grow(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"sampling.max_replicas={self.max_replicas} is below "
                f"sampling.min_replicas={self.min_replicas}"
            )
        return self


class TeacherSettings(Section):
    """The strong model that criticises and refines, behind the OpenAI chat API."""

    base_url: str = "https://api.openai.com/v1"
    """Root of any OpenAI-compatible API; ignored when `local.tutor` is on."""
    model: str = "gpt-4o"
    """Model name as that API knows it."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key, on the machine that calls."""
    api_key_file: str | None = None
    """File that holds the key; wins over the variable."""
    temperature: float = Field(default=0.0, ge=0, le=2)
    """Sampling temperature of critiques and refinements."""
    critique_max_tokens: int = Field(default=1024, ge=1)
    """Longest critique; a longer one is a failed row, never a cut text."""
    refinement_max_tokens: int = Field(default=2048, ge=1)
    """Longest refinement; a longer one is a failed row, never a cut text."""
    num_actors: int = Field(default=1, ge=1)
    """Actors that call the teacher."""
    max_in_flight: int = Field(default=64, ge=1)
    """Chats under way at once in one actor."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Limit on one call."""
    max_attempts: int = Field(default=6, ge=1)
    """Calls for one answer, the first included, before the row is left for a later run."""
    allow_private_address: bool = False
    """Let `base_url` point to a private or loopback address (your own server)."""


class CurationSettings(Section):
    """Which chains training may use. Rejected rows are kept, with their reason."""

    require_correct_refinement: bool = True
    """Reject rows whose refinement does not reach the reference."""
    require_wrong_draft: bool = False
    """Reject rows whose draft was right already."""
    num_processes: int = Field(default=2, ge=1)
    """Processes that grade answers."""


class ExampleSettings(Section):
    """Training documents: context without loss, target with loss."""

    objective: Objective = "cgd"
    """`sft` x -> y, `distilled_sft` x -> y^, `cft` x, y' -> c, `cgd` x, y', c -> y^."""
    prompt_only_share: float = Field(default=0.0, ge=0, le=0.5)
    """Share of all examples that are plain x -> y^, added beside the objective's own: 0.5 adds one
    for every example. It bridges the gap between the context of training and that of inference."""


class PackingSettings(Section):
    """Examples laid end to end, with no attention across them."""

    sequence_length: int = Field(default=2048, ge=16)
    """Most tokens in one packed batch; a longer example is rejected with a reason."""
    max_documents: int | None = Field(default=None, ge=1)
    """Most examples in one packed batch; 1 turns packing off; None: no limit."""


class TrainSettings(Section):
    """Fine-tuning: Ray Train running DeepSpeed."""

    num_workers: int = Field(default=1, ge=1)
    """Worker processes, one GPU each where there are GPUs."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """What the workers run on: gloo on CPU, nccl on GPU."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage: what is sharded over the workers."""
    batches_per_step: int = Field(default=1, ge=1)
    """Packed batches in one optimiser step, over all workers."""
    num_epochs: int = Field(default=1, ge=1)
    """Passes over the packed batches."""
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after so many optimiser steps; None: at the end of the last epoch."""
    learning_rate: float = Field(default=5e-6, gt=0)
    """Peak learning rate of AdamW."""
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the rate rises to its peak; then it falls as a cosine."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this global norm."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of weights and activations; the optimiser keeps float32 master weights either way."""
    gradient_checkpointing: bool = False
    """Compute activations twice to store them less."""
    checkpoint_every_steps: int = Field(default=500, ge=1)
    """Save the training state so often; a killed run resumes from the last one."""
    max_failures: int = Field(default=3, ge=0)
    """Times that Ray Train restarts lost workers by itself."""

    @model_validator(mode="after")
    def _workers_divide_the_step(self) -> Self:
        if self.batches_per_step % self.num_workers:
            raise ValueError(
                f"train.batches_per_step={self.batches_per_step} is not a multiple of "
                f"train.num_workers={self.num_workers}"
            )
        return self


class ServeSettings(Section):
    """Ray Serve LLM: base and student behind one OpenAI-compatible address."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8000, ge=1, le=65535)
    """Port to listen on."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """What the engines run on."""
    min_replicas: int = Field(default=1, ge=1)
    """Engines of each model that are always up."""
    max_replicas: int = Field(default=1, ge=1)
    """Engines of each model that autoscaling may reach."""
    kv_cache_gib: int = Field(default=1, ge=1)
    """Memory for the key-value cache of a CPU engine, in GiB."""


class EvaluateSettings(Section):
    """Scores of base and student, asked over HTTP."""

    base_url: str | None = None
    """An endpoint that already serves both models; None: the run serves them itself."""
    max_tokens: int = Field(default=512, ge=1)
    """Longest answer in tokens."""
    max_in_flight: int = Field(default=64, ge=1)
    """Requests under way at once."""
    timeout_s: float = Field(default=300.0, gt=0)
    """Limit on one request."""
    num_resamples: int = Field(default=10_000, ge=100)
    """Bootstrap resamples behind the interval of the paired difference."""


class ReportSettings(Section):
    """The page."""

    num_rows: int = Field(default=500, ge=0)
    """Most rows that can be browsed in the page."""


class Settings(Section):
    """Everything about one run."""

    run: RunSettings
    local: LocalSettings = LocalSettings()
    prompts: PromptSettings
    student: StudentSettings = StudentSettings()
    sampling: SamplingSettings = SamplingSettings()
    teacher: TeacherSettings = TeacherSettings()
    curation: CurationSettings = CurationSettings()
    examples: ExampleSettings = ExampleSettings()
    packing: PackingSettings = PackingSettings()
    train: TrainSettings = TrainSettings()
    serve: ServeSettings = ServeSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    report: ReportSettings = ReportSettings()

    @model_validator(mode="after")
    def _lengths_fit(self) -> Self:
        if self.sampling.max_tokens >= self.student.max_model_len:
            raise ValueError(
                f"sampling.max_tokens={self.sampling.max_tokens} leaves no room for the prompt in "
                f"student.max_model_len={self.student.max_model_len}"
            )
        if self.evaluate.max_tokens >= self.student.max_model_len:
            raise ValueError(
                f"evaluate.max_tokens={self.evaluate.max_tokens} leaves no room for the prompt in "
                f"student.max_model_len={self.student.max_model_len}"
            )
        return self


def setting_paths(section: type[BaseModel] = Settings, prefix: str = "") -> list[str]:
    """Return every dotted setting path, in the order of the file."""
    paths: list[str] = []
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            paths += setting_paths(inner, f"{prefix}{name}.")
        else:
            paths.append(prefix + name)
    return paths


def load(path: str | Path, overrides: Sequence[str] = ()) -> Settings:
    """Read a run file and apply overrides such as `train.num_epochs=2`.

    Raises:
        UserError: the file cannot be read, or a setting is unknown or out of range.
    """
    try:
        data: dict[str, Any] = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read run file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"run file {path} is not valid TOML: {error}") from error
    for override in overrides:
        _apply(data, override)
    return parse(data, str(path))


def parse(data: dict[str, Any], where: str) -> Settings:
    """Return settings from a plain dictionary.

    Raises:
        UserError: one line for each setting that is unknown or out of range.
    """
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        lines = [_explain(dict(e)) for e in error.errors(include_url=False)]
        raise UserError(f"{where}: " + "; ".join(lines)) from error


def _apply(data: dict[str, Any], override: str) -> None:
    name, found, text = override.partition("=")
    parts = name.strip().split(".")
    if not found or not all(parts):
        raise UserError(f"override '{override}' is not of the form section.setting=value")
    for part in parts[:-1]:
        inner: object = data.setdefault(part, {})
        if not isinstance(inner, dict):
            raise UserError(f"override '{override}': '{part}' is a value, not a section")
        data = cast("dict[str, Any]", inner)
    data[parts[-1]] = _value(text)


def _value(text: str) -> object:
    """Read a value as TOML would; what TOML cannot read is text. `none` unsets."""
    if text.strip().lower() == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(error: dict[str, Any]) -> str:
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(path, setting_paths(), n=1, cutoff=0.6)
        return f"unknown setting {path}" + (f"; did you mean {close[0]}?" if close else "")
    if error["type"] == "missing":
        return f"{path} is required and not set"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    value = error["input"]
    shown = f"={value!r}" if isinstance(value, str | int | float | bool) else ""
    return f"{path}{shown}: {error['msg'][:1].lower()}{error['msg'][1:]}"


OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
