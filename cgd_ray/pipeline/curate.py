"""Stage 4: chains verified against the reference; rejected rows stay, with their reason."""

from cgd_ray.curation.verification import count_rejections, verify
from cgd_ray.examples.objectives import Chain
from cgd_ray.pipeline.context import RunContext, Summary
from cgd_ray.pipeline.prompts import read_prompts
from cgd_ray.records import Critique, CuratedRow, Draft, Refinement
from cgd_ray.shards import commit_shard, read_records


def make_curated(ctx: RunContext) -> Summary:
    """Grade every refined chain and commit the verdicts."""
    chains = read_taught(ctx)
    with ctx.progress.stage("curation", len(chains), "rows", "rejected") as line:
        rows = verify(chains, ctx.settings.curation)
        commit_shard(ctx.store, ctx.folders.curated, rows)
        rejected = count_rejections(rows)
        line.update(len(rows) - sum(rejected.values()), sum(rejected.values()))
    return {
        "asked": len(rows),
        "kept": len(rows) - sum(rejected.values()),
        "rejected": rejected,
        "drafts_right": sum(row.draft_correct is True for row in rows),
        "refinements_right": sum(row.refinement_correct is True for row in rows),
        "critiques_masked": sum(row.masked_critique is not None for row in rows),
    }


def read_taught(ctx: RunContext) -> list[Chain]:
    """Return all chains that have a refinement, in the order of their draft ids."""
    prompts = read_prompts(ctx, "train")
    drafts = read_records(ctx.store, ctx.folders.drafts, Draft)
    critiques = read_records(ctx.store, ctx.folders.refinements, Critique)
    refinements = read_records(ctx.store, ctx.folders.refinements, Refinement)
    return [
        Chain(prompts[drafts[key].prompt_id], drafts[key], critiques[key], refinement)
        for key, refinement in refinements.items()
    ]


def read_curated(ctx: RunContext) -> dict[str, CuratedRow]:
    """Return the stored verdicts by draft id."""
    return read_records(ctx.store, ctx.folders.curated, CuratedRow)
