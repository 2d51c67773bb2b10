"""Stage 5: kept chains -> examples -> packed batches, as parquet shards."""

from dataclasses import replace

from cgd_ray.errors import UserError
from cgd_ray.examples.chat import ChatTokenizer
from cgd_ray.examples.mixing import drawn_chains, prompt_only_chains, spoilt_chains
from cgd_ray.examples.objectives import PROMPT_ONLY, Chain, build_example
from cgd_ray.examples.packing import SHARD_ROWS, pack, padding_share
from cgd_ray.examples.transforms import TRANSFORMS, donors, spoilt
from cgd_ray.pipeline.context import RunContext, Summary
from cgd_ray.pipeline.curate import read_curated, read_taught
from cgd_ray.pipeline.rounds import starting_student
from cgd_ray.records import CuratedRow, Example, Failure
from cgd_ray.settings import Settings
from cgd_ray.shards import commit_shard, count_reasons
from cgd_ray.student import chat_tokenizer, model_context, tokenizer_hash


def make_examples(ctx: RunContext) -> Summary:
    """Tokenize and pack the kept chains.

    Raises:
        UserError: no chain is left, none fits, or packed batches are longer than the model's
            context.
    """
    s = ctx.settings
    source = starting_student(ctx)
    context = model_context(source)
    if context is not None and s.packing.sequence_length > context:
        raise UserError(
            f"packing.sequence_length={s.packing.sequence_length} exceeds the {context} tokens "
            f"that student.model={s.student.model} can attend to"
        )
    chains = read_chains(ctx)
    with ctx.progress.stage("examples", None, "examples") as line:
        examples, failures = build_examples(s, chains, chat_tokenizer(source))
        if not examples:
            raise UserError(
                f"no examples: {len(chains)} chains kept, failures {count_reasons(failures)}; see "
                "curation.* and packing.sequence_length"
            )
        rows = pack(examples, s.packing.sequence_length, s.packing.max_documents)
        for start in range(0, len(rows), SHARD_ROWS):
            commit_shard(ctx.store, ctx.folders.examples, rows[start : start + SHARD_ROWS])
        for start in range(0, len(examples), SHARD_ROWS):
            commit_shard(ctx.store, ctx.folders.examples, examples[start : start + SHARD_ROWS])
        if failures:
            commit_shard(ctx.store, ctx.folders.examples, list(failures.values()))
        line.update(len(examples), len(failures), note=f"{len(rows)} packed batches")
    return {
        "asked": len(examples) + len(failures),
        "made": len(examples),
        "prompt_only": sum(e.objective == PROMPT_ONLY for e in examples),
        "critiques_transformed": sum(e.critique_transform != "none" for e in examples),
        "cut": sum(e.num_cut > 0 for e in examples),
        "cut_tokens": sum(e.num_cut for e in examples),
        "failed": count_reasons(failures),
        "packed_batches": len(rows),
        "tokens": sum(len(e.input_ids) for e in examples),
        "target_tokens": sum(sum(e.loss_mask) for e in examples),
        "tokenizer": tokenizer_hash(source),
        "padding_share": round(padding_share(rows, s.packing.sequence_length), 4),
    }


def build_examples(
    settings: Settings, chains: list[Chain], tokenizer: ChatTokenizer
) -> tuple[list[Example], dict[str, Failure]]:
    """Return the objective's examples, the plain ones beside them, and the failures by id."""
    s, seed = settings.examples, settings.run.seed
    how = s.critique_transform
    chosen = spoilt_chains(chains, s.critique_transform_share, seed) if how != "none" else set()
    given = donors(chains, seed) if how == "shuffled" else {}
    made: list[Example | Failure] = []
    for chain in chains:
        if chain.draft.id not in chosen:
            made.append(_example(settings, s.objective, chain, tokenizer))
            continue
        worse = spoilt(chain, how, given.get(chain.draft.id), seed)
        if worse is None:
            made.append(_not_transformable(chain, s.objective, how))
        else:
            made.append(_example(settings, s.objective, worse, tokenizer, how))
    plain = prompt_only_chains(chains, s.prompt_only_share, seed)
    made += [_example(settings, PROMPT_ONLY, chain, tokenizer) for chain in plain]
    examples = [m for m in made if isinstance(m, Example)]
    return examples, {m.key: m for m in made if isinstance(m, Failure)}


def _example(
    s: Settings, objective: str, chain: Chain, tokenizer: ChatTokenizer, transform: str = "none"
) -> Example | Failure:
    limit = s.packing.sequence_length
    return build_example(objective, chain, tokenizer, limit, s.examples.on_too_long, transform)


def _not_transformable(chain: Chain, objective: str, transform: str) -> Failure:
    detail = f"critique_transform={transform} needs {TRANSFORMS[transform].needs}"
    row_id = f"{chain.draft.id}#{objective}"
    return Failure(row_id, "examples", "not_transformable", detail, permanent=True)


def read_chains(ctx: RunContext) -> list[Chain]:
    """Return the kept chains, in the order of their draft ids, with the critiques that are used."""
    taught = {chain.draft.id: chain for chain in read_taught(ctx)}
    kept = [row for row in read_curated(ctx).values() if row.rejected is None]
    chains = [_as_used(taught[row.draft_id], row) for row in kept]
    return drawn_chains(chains, ctx.settings.examples.max_chains, ctx.settings.run.seed)


def _as_used(chain: Chain, row: CuratedRow) -> Chain:
    if row.masked_critique is None:
        return chain
    return replace(chain, critique=replace(chain.critique, text=row.masked_critique))
