"""`cgd export`: the generated chains of a run, as far as they are, as a data set folder."""

from collections.abc import Mapping
from pathlib import Path

from cgd_ray.export.card import CardFacts, dataset_card
from cgd_ray.export.chains import ChainFolders, Chains
from cgd_ray.export.dataset import check_out, export_dataset
from cgd_ray.noise import say
from cgd_ray.pipeline.context import RunContext
from cgd_ray.pipeline.prompts import split_folder
from cgd_ray.pipeline.run import opened
from cgd_ray.pipeline.stages import finished, require
from cgd_ray.records import Critique, Draft, Record, Refinement
from cgd_ray.settings import Settings
from cgd_ray.shards import committed_files, count_reasons, read_failures


def export(settings: Settings, out: Path) -> None:
    """Write the committed chains and a card to a new folder.

    Raises:
        UserError: the prompts are not made, there are no chains, or `out` is not empty.
    """
    check_out(out)
    with opened(settings) as ctx:
        require(ctx, "prompts")
        f = ctx.folders
        prompts = split_folder(f.prompts, "train")
        chains = Chains(ctx.store, ChainFolders(prompts, f.drafts, f.refinements, f.curated))
        with ctx.progress.stage("export", len(chains), "rows") as line:
            export_dataset(chains, dataset_card(_facts(ctx, chains)), out, tell=line.update)
    say(f"data set    {out} ({len(chains)} rows)")


def _facts(ctx: RunContext, chains: Chains) -> CardFacts:
    s = ctx.settings
    taught = finished(ctx, "refinements")
    return CardFacts(
        name=s.run.name,
        student=s.student.model,
        teacher=f"tutor (reveals: {s.local.tutor_reveal})" if s.local.tutor else s.teacher.model,
        sources=(s.prompts.train,),
        finished=taught is not None,
        counts=chains.counts(),
        reasons=_reasons(ctx, chains),
        tokens=_tokens(ctx),
        usd=None if taught is None else taught.get("usd"),
        settings=s.model_dump(mode="json", include=_SHOWN),
    )


# What made the chains: not addresses, keys' places, ports and folders of the machines.
_SHOWN = {
    "run": {"seed"},
    "prompts": True,
    "student": {"model", "max_model_len"},
    "sampling": {"engine", "num_drafts", "temperature", "top_p", "max_tokens"},
    "teacher": {
        "backend",
        "model",
        "turns",
        "temperature",
        "critique_max_tokens",
        "refinement_max_tokens",
    },
    "curation": {"require_correct_refinement", "require_wrong_draft", "leakage", "min_specificity"},
}


def _reasons(ctx: RunContext, chains: Chains) -> dict[str, Mapping[str, int]]:
    prompts = finished(ctx, "prompts") or {}
    curated = finished(ctx, "curated") or {}
    drafted = read_failures(ctx.store, ctx.folders.drafts, chains.drafts)
    taught = read_failures(ctx.store, ctx.folders.refinements, chains.refinements)
    return {
        "prompts": prompts.get("failed", {}),
        "drafts": count_reasons(drafted),
        "teacher": count_reasons(taught),
        "curation (rejected)": curated.get("rejected", {}),
    }


def _tokens(ctx: RunContext) -> dict[str, int]:
    drafts, taught = ctx.folders.drafts, ctx.folders.refinements
    return {
        "drafts": _sum(ctx, drafts, "num_tokens", Draft),
        "teacher's input": _sum(ctx, taught, "num_input_tokens", Critique, Refinement),
        "of it cached": _sum(ctx, taught, "num_cached_tokens", Critique, Refinement),
        "teacher's output": _sum(ctx, taught, "num_output_tokens", Critique, Refinement),
    }


def _sum(ctx: RunContext, folder: str, column: str, *kinds: type[Record]) -> int:
    return sum(file.sums[column] for file in committed_files(ctx.store, folder, *kinds))
