"""Trained students, as local folders."""

from pathlib import Path

from cgd_ray.errors import UserError
from cgd_ray.model_folders import CARD, FOLDER, fetch_model
from cgd_ray.pipeline.context import RunContext, Summary
from cgd_ray.report.card import with_scores
from cgd_ray.shards import read_complete


def trained_model(ctx: RunContext) -> Path:
    """Return the folder of a run's trained student, fetched from the store once.

    Raises:
        UserError: the run has not been trained, or the stored files are damaged.
    """
    if read_complete(ctx.store, ctx.folders.checkpoint) is None:
        raise UserError(
            f"{ctx.store.root}/{ctx.folders.checkpoint} holds no trained student: run `cgd train` "
            "with the same settings first"
        )
    folder = fetched_model(ctx, ctx.folders.checkpoint)
    note = _note(ctx.work_dir, ctx.settings.run.name)
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(folder.name, encoding="utf-8")
    return folder


def fetched_model(ctx: RunContext, checkpoint: str) -> Path:
    """Return the local copy of a checkpoint's model, fetched once."""
    target = _local(ctx, checkpoint)
    if not target.is_dir():
        fetch_model(ctx.store, checkpoint, target)
    return target


def add_scores(ctx: RunContext, scores: Summary) -> None:
    """Put an evaluation's results on the trained student's model card, here and in the store."""
    key = f"{ctx.folders.checkpoint}/model/{CARD}"
    card = with_scores(ctx.store.get(key).decode("utf-8"), scores).encode("utf-8")
    ctx.store.put(key, card)
    local = _local(ctx, ctx.folders.checkpoint)
    if local.is_dir():
        (local / CARD).write_bytes(card)


def last_fetched(work_dir: Path, run_name: str) -> Path | None:
    """Return the student that `trained_model` last found for a run, without its store."""
    note = _note(work_dir, run_name)
    if not note.is_file():
        return None
    folder = (work_dir / FOLDER / note.read_text(encoding="utf-8")).resolve()
    return folder if folder.is_dir() else None


def _local(ctx: RunContext, checkpoint: str) -> Path:
    return (ctx.work_dir / FOLDER / checkpoint).resolve()


def _note(work_dir: Path, run_name: str) -> Path:
    return work_dir / run_name / "student.txt"
