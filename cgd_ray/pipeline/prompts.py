"""Stage 1: prompts, from their source into the store."""

from cgd_ray.pipeline.context import RunContext, Summary
from cgd_ray.prompts.sources import load_prompts
from cgd_ray.records import Prompt
from cgd_ray.shards import commit_shard, count_reasons, read_records


def make_prompts(ctx: RunContext) -> Summary:
    """Load the prompts and commit them.

    Raises:
        UserError: the source is missing, corrupt, empty, lacks a column or repeats a prompt.
    """
    with ctx.progress.stage("prompts", None, "rows") as line:
        loaded = load_prompts(ctx.settings.prompts, ctx.settings.run.seed)
        commit_shard(ctx.store, ctx.folders.prompts, [*loaded.records, *loaded.failures])
        line.update(len(loaded.records), len(loaded.failures))
    train = [r for r in loaded.records if isinstance(r, Prompt) and r.split == "train"]
    return {
        "train": len(train),
        "test": len(loaded.records) - len(train),
        "failed": count_reasons({f.key: f for f in loaded.failures}),
    }


def read_prompts(ctx: RunContext, split: str) -> dict[str, Prompt]:
    """Return the stored prompts of a split by id."""
    found = read_records(ctx.store, ctx.folders.prompts, Prompt)
    return {key: prompt for key, prompt in found.items() if prompt.split == split}
