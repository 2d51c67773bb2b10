"""Stage 1: prompts, from their source into the store."""

from collections import Counter

from cgd_ray.pipeline.context import RunContext, Summary
from cgd_ray.prompts.sources import load_prompts
from cgd_ray.records import Prompt, Record
from cgd_ray.shards import commit_shard, read_records


def make_prompts(ctx: RunContext) -> Summary:
    """Load the prompts and commit them, a shard a chunk: each has prompts of one split.

    Raises:
        UserError: the source is missing, corrupt, empty, lacks a column or repeats a prompt.
    """
    splits: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    with ctx.progress.stage("prompts", None, "rows") as line:
        for chunk in load_prompts(ctx.settings.prompts, ctx.settings.run.seed, ctx.progress.say):
            rows = [*chunk.records, *chunk.failures]
            commit_shard(ctx.store, split_folder(ctx.folders.prompts, _split_of(rows[0])), rows)
            splits.update(r.split for r in chunk.records if isinstance(r, Prompt))
            reasons.update(f.reason for f in chunk.failures)
            line.update(splits.total(), reasons.total())
    return {
        "train": splits["train"],
        "test": splits["test"],
        "failed": dict(reasons.most_common()),
    }


def split_folder(folder: str, split: str) -> str:
    """Return where the prompts of a split are: apart, so that their commits tell them apart."""
    return f"{folder}/{split}"


def read_prompts(ctx: RunContext, split: str) -> dict[str, Prompt]:
    """Return the stored prompts of a split by id."""
    return read_records(ctx.store, split_folder(ctx.folders.prompts, split), Prompt)


def _split_of(row: Record) -> str:
    # The id of an unusable row is "unusable:<split>:<place>".
    return row.split if isinstance(row, Prompt) else row.key.split(":")[1]
