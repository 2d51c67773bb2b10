"""Stage 1: prompts, from their source into the store."""

from collections import Counter

from cgd_ray.pipeline.context import RunContext, Summary
from cgd_ray.prompts.sources import load_prompts
from cgd_ray.records import Prompt
from cgd_ray.shards import commit_shard, read_records


def make_prompts(ctx: RunContext) -> Summary:
    """Load the prompts and commit them, a shard a chunk: each has prompts of one split.

    Raises:
        UserError: the source is missing, corrupt, empty, lacks a column or repeats a prompt.
    """
    splits: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    with ctx.progress.stage("prompts", None, "rows") as line:
        for chunk in load_prompts(ctx.settings.prompts, ctx.settings.run.seed):
            commit_shard(ctx.store, ctx.folders.prompts, [*chunk.records, *chunk.failures])
            splits.update(r.split for r in chunk.records if isinstance(r, Prompt))
            reasons.update(f.reason for f in chunk.failures)
            line.update(splits.total(), reasons.total())
    return {
        "train": splits["train"],
        "test": splits["test"],
        "failed": dict(reasons.most_common()),
    }


def read_prompts(ctx: RunContext, split: str) -> dict[str, Prompt]:
    """Return the stored prompts of a split by id."""
    found = read_records(ctx.store, ctx.folders.prompts, Prompt)
    return {key: prompt for key, prompt in found.items() if prompt.split == split}
