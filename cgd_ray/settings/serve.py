"""Serving, evaluation and the report."""

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from cgd_ray.evaluation.tasks import OWN, parse_task
from cgd_ray.settings.base import Section

Method = Literal["one_pass", "self_refine_1", "self_refine_3", "teacher_critique"]


class ServeSettings(Section):
    """Models side by side behind one OpenAI-compatible address, and what guards it."""

    host: str = "127.0.0.1"
    """Address to listen on; any but a loopback address needs API keys."""
    port: int = Field(default=8000, ge=1, le=65535)
    """Port to listen on."""
    models: dict[str, str] = Field(default={"base": "base", "student": "student"}, min_length=1)
    """What is served: model id -> model folder or Hugging Face id; `base` and `student` are this
    run's own."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """What the engines run on."""
    tensor_parallel_size: int | None = Field(default=None, ge=1)
    """GPUs that one engine spreads a layer over; None takes as few as hold the weights."""
    min_replicas: int = Field(default=1, ge=1)
    """Engines of each model that are always up."""
    max_replicas: int = Field(default=1, ge=1)
    """Engines of each model that autoscaling may reach."""
    target_requests: int = Field(default=64, ge=1)
    """Requests under way in one engine above which autoscaling adds another."""
    kv_cache_gib: int = Field(default=1, ge=1)
    """Memory for the key-value cache of a CPU engine, in GiB."""
    api_keys_file: str | None = None
    """File of API keys, one a line, mode 600; read again when it changes: no restart to rotate."""
    api_keys_env: str = Field(default="CGD_API_KEYS", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Variable with API keys, separated by commas; used where no file is set."""
    max_body_bytes: int = Field(default=2**20, ge=1024)
    """Longest request body in bytes; longer ones get 413."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longest answer that may be asked for, in tokens; None: student.max_model_len."""
    max_choices: int = Field(default=64, ge=1)
    """Most answers of one request: its prompts times `n`."""
    max_in_flight: int = Field(default=256, ge=1)
    """Requests under way or waiting at once; more get 429."""
    retry_after_s: int = Field(default=1, ge=1)
    """What a refused client is told to wait, in seconds."""
    request_timeout_s: float = Field(default=300.0, gt=0, le=600)
    """Limit on one answer; then the engine drops the request and the client gets 504."""
    body_timeout_s: float = Field(default=30.0, gt=0)
    """Limit on receiving a request's body; slower clients get 408."""
    drain_s: float = Field(default=30.0, ge=0, le=50)
    """Time that answers under way are given when an engine or the server is stopped."""
    structured_outputs: bool = False
    """Accept tools and JSON schemas: they make the engine compile a grammar of the client's."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages on other hosts that may ask, such as `https://app.example.org`."""
    tls_certfile: str | None = None
    """Certificate chain (PEM) to serve HTTPS with."""
    tls_keyfile: str | None = None
    """Private key (PEM) of the certificate."""
    playground: bool = True
    """Serve a page at `/` that asks two models side by side."""

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_certfile is None) != (self.tls_keyfile is None):
            raise ValueError("serve.tls_certfile and serve.tls_keyfile must be set together")
        return self

    @model_validator(mode="after")
    def _engines_can_grow(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"serve.max_replicas={self.max_replicas} is below "
                f"serve.min_replicas={self.min_replicas}"
            )
        return self

    @model_validator(mode="after")
    def _ids_are_names(self) -> Self:
        for name in self.models:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
                raise ValueError(
                    f"serve.models: {name!r} is no model id: letters, digits, `.`, `_` and `-`"
                )
        return self


class EvaluateSettings(Section):
    """Scores of base and student, asked over HTTP."""

    tasks: tuple[str, ...] = Field(default=(OWN,), min_length=1)
    """What is asked: `prompts.test`, names such as `gsm8k` or `gsm8k:16` (16 answers a problem),
    files of problems, `gsm8k@FILE`, `reasoning-gym:FAMILY`."""
    data_dir: str | None = None
    """Folder of evaluation sets, each as `<name>/test.jsonl`; None: named tasks are read from the
    Hugging Face hub."""
    num_problems: int | None = Field(default=None, ge=1)
    """Ask so many problems of each task, the same ones each time; None: all."""
    methods: tuple[Method, ...] = Field(default=("one_pass",), min_length=1)
    """How answers are come by. Besides the one pass that CGD is for: the same model criticising and
    rewriting its answer once or three times, and the teacher's critique at test time."""
    temperature: float = Field(default=0.0, ge=0)
    """Of sampling; 0 takes the likeliest token. Several answers a problem need more than 0."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Share of the probability that is sampled from."""
    max_tokens: int = Field(default=512, ge=1)
    """Longest answer in tokens."""
    base_url: str | None = None
    """An OpenAI-compatible endpoint that already serves both models; None: the run serves them."""
    base_model: str = "base"
    """Name of the base model at `base_url`."""
    student_model: str = "student"
    """Name of the student at `base_url`."""
    api_key_env: str | None = None
    """Environment variable that holds the key of `base_url`; None: none is sent."""
    allow_code_execution: bool = False
    """Run the code that models write for `humaneval`, in a process without network or rights."""
    max_in_flight: int = Field(default=64, ge=1)
    """Problems under way at once."""
    timeout_s: float = Field(default=300.0, gt=0)
    """Limit on one request."""
    num_resamples: int = Field(default=10_000, ge=100)
    """Bootstrap resamples behind the intervals."""

    @model_validator(mode="after")
    def _tasks_can_be_asked(self) -> Self:
        specs = [parse_task(text) for text in self.tasks]
        for spec in specs:
            if spec.num_samples > 1 and self.temperature == 0:
                raise ValueError(
                    f"evaluate.tasks: '{spec.text}' and evaluate.temperature=0 would give the same "
                    f"answer {spec.num_samples} times: set evaluate.temperature, such as 0.6"
                )
        for name, values in (("tasks", self.tasks), ("methods", self.methods)):
            if len(set(values)) < len(values):
                raise ValueError(f"evaluate.{name} names something twice: {', '.join(values)}")
        return self


class ReportSettings(Section):
    """The page."""

    num_rows: int = Field(default=500, ge=0)
    """Most rows that can be browsed in the page."""
