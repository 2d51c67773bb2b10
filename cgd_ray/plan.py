"""The arithmetic of a run before it runs: what `--dry-run` prints and every job prints first."""

import json
from dataclasses import dataclass
from pathlib import Path

from cgd_ray.settings import EMBEDDED_STUDENT, Settings
from cgd_ray.training.memory import (
    EMBEDDED_SHAPE,
    HUB_SHAPES,
    MemoryEstimate,
    ModelShape,
    estimate_memory,
    memory_settings,
    model_shape,
)

_BYTES_A_TOKEN = 5  # packed shards: four for the id, one for the mask, before compression


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes that follow from the settings alone. Token figures are upper bounds."""

    num_prompts: int | None  # None: as many as the file has
    num_drafts: int | None
    num_teacher_calls: int | None
    num_examples: int | None
    max_example_tokens: int
    max_tokens_an_epoch: int | None
    max_shard_bytes: int | None
    batches_a_worker_step: int  # gradient accumulation
    max_steps: int | None  # with one example in a packed batch; packing and curation lower it
    num_parameters: float | None
    weight_bytes: float | None
    training_bytes_a_worker: float | None  # weights, gradients, optimiser; no activations
    training_memory: MemoryEstimate | None  # of a worker; None: the student's shape is not known
    state_bytes: float | None  # one checkpoint


def derive(settings: Settings) -> Plan:
    """Return the plan of a run."""
    s = settings
    prompts = s.prompts.num_train
    drafts = prompts and prompts * s.sampling.num_drafts
    examples = drafts and round(drafts / (1 - s.examples.prompt_only_share))
    longest = _longest_example(s)
    tokens = examples and examples * longest
    t, shape = s.train, student_shape(s.student.model)
    parameters, memory = s.student.num_parameters, None
    if shape:
        parameters = shape.num_parameters
        memory = estimate_memory(shape, memory_settings(t, shape, s.packing.sequence_length))
    return Plan(
        num_prompts=prompts,
        num_drafts=drafts,
        num_teacher_calls=drafts and 2 * drafts,
        num_examples=examples,
        max_example_tokens=longest,
        max_tokens_an_epoch=tokens,
        max_shard_bytes=tokens and tokens * _BYTES_A_TOKEN,
        batches_a_worker_step=-(-t.batches_per_step // t.max_workers),
        max_steps=examples and _steps(examples, s),
        num_parameters=parameters,
        weight_bytes=parameters and parameters * _width(s),
        training_bytes_a_worker=parameters and training_bytes(parameters, s),
        training_memory=memory,
        state_bytes=parameters and parameters * (_width(s) + 12),
    )


def student_shape(model: str) -> ModelShape | None:
    """Return the shape of a student whose configuration is at hand; None: on a hub, or unusual.

    Args:
        model: `student.model`.
    """
    if model == EMBEDDED_STUDENT:
        return EMBEDDED_SHAPE
    if model in HUB_SHAPES:
        return HUB_SHAPES[model]
    try:
        text = (Path(model).expanduser() / "config.json").read_text(encoding="utf-8")
        return model_shape(json.loads(text))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def training_bytes(parameters: float, settings: Settings) -> float:
    """Return bytes of weights, gradients and AdamW state in one worker (ZeRO paper, section 3).

    Weights and gradients have the training type; AdamW holds float32 weights and two moments.
    Stage 1 shards the optimiser, 2 also the gradients, 3 also the weights.
    """
    width, workers, stage = _width(settings), settings.train.max_workers, settings.train.zero_stage
    optimizer = 12 / (workers if stage >= 1 else 1)
    gradients = width / (workers if stage >= 2 else 1)
    weights = width / (workers if stage >= 3 else 1)
    return parameters * (optimizer + gradients + weights)


def describe(settings: Settings, plan: Plan) -> str:
    """Return the plan as aligned lines for a terminal."""
    s, p = settings, plan
    epoch = ""
    if p.max_tokens_an_epoch is not None:
        epoch = f", {p.max_tokens_an_epoch:,} an epoch ({size(p.max_shard_bytes)} of shards)"
    rows = [] if s.run.rounds == 1 else [("rounds", f"{s.run.rounds}, each as follows")]
    rows += [
        ("prompts", f"{_count(p.num_prompts)} training, {_count(s.prompts.num_test)} test"),
        ("drafts", f"{_count(p.num_drafts)} by {s.student.model}"),
        ("teacher", f"{_count(p.num_teacher_calls)} calls to {s.teacher.model}"),
        ("examples", f"{_count(p.num_examples)} ({s.examples.objective})"),
        (
            "tokens",
            f"at most {_count(p.max_example_tokens)} an example{epoch}",
        ),
        (
            "step",
            f"{s.train.batches_per_step} packed batches of at most "
            f"{s.packing.sequence_length} tokens: {s.train.max_workers} workers x "
            f"{p.batches_a_worker_step}",
        ),
        (
            "steps",
            f"at most {_count(p.max_steps)} (train.num_epochs={s.train.num_epochs}), "
            "fewer as examples pack",
        ),
        ("memory", "unknown (set student.num_parameters)"),
    ]
    if p.training_bytes_a_worker is not None:
        rows[-1] = ("memory", _memory(s, p))
        checkpoint = f"{size(p.weight_bytes)} of weights, {size(p.state_bytes)} of state"
        rows.append(("checkpoint", checkpoint))
    return "\n".join(f"  {name:<12}{text}" for name, text in rows)


def _memory(s: Settings, p: Plan) -> str:
    stage, m = f"ZeRO-{s.train.zero_stage}", p.training_memory
    if m is None:
        return f"{size(p.training_bytes_a_worker)} a worker ({stage}, without activations)"
    kind = f"{stage}, LoRA" if s.train.lora.rank else stage
    return (
        f"at most {size(m.peak)} a worker ({kind}): {size(m.states + m.gradients)} of weights, "
        f"gradients and optimizer, {size(m.activations + m.logits)} of activations and logits"
    )


def _longest_example(s: Settings) -> int:
    """Return the most tokens that an example can have under its objective."""
    teacher = s.teacher
    draft, critique = s.sampling.max_tokens, teacher.critique_max_tokens
    refinement = teacher.refinement_max_tokens
    parts = {
        "sft": s.packing.sequence_length,  # the data's own solutions have no limit
        "distilled_sft": refinement,
        "cft": draft + critique,
        "cgd": draft + critique + refinement,
        "cgd_no_critique": draft + refinement,
        "cgd_no_draft": critique + refinement,
    }
    prompt = s.student.max_model_len - s.sampling.max_tokens
    return min(s.packing.sequence_length, prompt + parts[s.examples.objective])


def _steps(num_batches: int, s: Settings) -> int:
    steps = -(-num_batches // s.train.batches_per_step) * s.train.num_epochs
    return steps if s.train.max_steps is None else min(steps, s.train.max_steps)


def _width(s: Settings) -> int:
    return 2 if s.train.dtype == "bfloat16" else 4


def _count(value: int | None) -> str:
    return "as many as there are prompts" if value is None else f"{value:,}"


def size(num_bytes: float | None) -> str:
    """Return a size as people read it; "unknown" for None."""
    if num_bytes is None:
        return "unknown"
    for unit in ("B", "KB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"
