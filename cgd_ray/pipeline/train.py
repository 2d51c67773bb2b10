"""Stage 6: packed batches -> checkpoint, and the student as a Hugging Face folder."""

import os

from cgd_ray.pipeline.context import RunContext, Summary
from cgd_ray.pipeline.rounds import starting_student
from cgd_ray.pipeline.stages import finished
from cgd_ray.report.card import model_card
from cgd_ray.runtime import ray_session, use_gpu
from cgd_ray.training.batch import read_index
from cgd_ray.training.families import check_student, check_tokenizer
from cgd_ray.training.launch import launch
from cgd_ray.training.liger import check_liger
from cgd_ray.training.metrics import (
    StepMetrics,
    progress_note,
    read_metrics,
    tokens_per_second,
)
from cgd_ray.training.order import num_steps
from cgd_ray.training.task import TrainTask
from cgd_ray.training.tracking import check_trackers
from cgd_ray.watching.export import export
from cgd_ray.watching.figures import TrainingFigures


def check_before(ctx: RunContext) -> None:
    """Refuse what needs no examples to be refused.

    Raises:
        UserError: the student cannot be trained, or a tracker's package is missing.
    """
    s = ctx.settings
    check_student(starting_student(ctx), s.packing.sequence_length, s.train.lora)
    check_trackers(s.train.trackers)


def make_checkpoint(ctx: RunContext) -> Summary:
    """Fine-tune the student, from the newest training state if there is one."""
    s = ctx.settings
    source = starting_student(ctx)
    examples = finished(ctx, "examples") or {}
    check_before(ctx)
    check_tokenizer(source, f"{ctx.store.root}/{ctx.folders.examples}", examples.get("tokenizer"))
    num_rows = len(read_index(ctx.store, ctx.folders.examples))
    total = num_steps(num_rows, s.train.batches_per_step, s.train.num_epochs, s.train.max_steps)
    before = len(read_metrics(ctx.store, ctx.folders.checkpoint))
    figures = TrainingFigures(s.run.name, total, before)
    with ctx.progress.stage("training", total, "steps") as line:

        def watch(steps: list[StepMetrics]) -> None:
            export(figures.of(steps))
            if not steps:
                return line.update(0, note="loading")
            done_before = min(before, len(steps))
            return line.update(len(steps) - done_before, 0, done_before, progress_note(steps))

        watch([])
        with ray_session(s.run.num_cpus):
            on_gpu = use_gpu(s.train.accelerator)
            check_liger(s.train.liger, on_gpu=on_gpu)
            task = TrainTask(
                train=s.train,
                seed=s.run.seed if s.train.seed is None else s.train.seed,
                source=source,
                root=ctx.store.root,
                examples_folder=ctx.folders.examples,
                folder=ctx.folders.checkpoint,
                model_card=model_card(s, examples, ctx.folders.examples),
                on_gpu=on_gpu,
                threads=max(1, (os.cpu_count() or 1) // s.train.max_workers),
            )
            launch(task, ctx.store, ctx.work_dir, watch)
    steps = read_metrics(ctx.store, ctx.folders.checkpoint)
    return {
        "steps": len(steps),
        "first_loss": round(steps[0].loss, 4),
        "last_loss": round(steps[-1].loss, 4),
        "tokens": sum(m.num_tokens for m in steps),
        "target_tokens": sum(m.num_targets for m in steps),
        "tokens_per_second": round(tokens_per_second(steps), 1),
        "data_wait_s": round(sum(m.data_wait_s for m in steps), 3),
        "peak_memory_gib": round(max(m.peak_memory_gib for m in steps), 3),
    }
