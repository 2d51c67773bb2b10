"""Stage 5: kept chains -> examples -> packed batches, as parquet shards."""

from cgd_ray.errors import UserError
from cgd_ray.examples.chat import ChatTokenizer
from cgd_ray.examples.mixing import prompt_only_chains
from cgd_ray.examples.objectives import PROMPT_ONLY, Chain, build_example
from cgd_ray.examples.packing import pack, padding_share
from cgd_ray.pipeline.context import RunContext, Summary
from cgd_ray.pipeline.curate import read_curated
from cgd_ray.pipeline.prompts import read_prompts
from cgd_ray.pipeline.rounds import starting_student
from cgd_ray.records import Critique, Draft, Example, Failure, Refinement
from cgd_ray.shards import commit_shard, count_reasons, read_records
from cgd_ray.student import chat_tokenizer, model_context

_SHARD_ROWS = 4096


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
        examples, failures = build_examples(ctx, chains, chat_tokenizer(source))
        if not examples:
            raise UserError(
                f"no examples: {len(chains)} chains kept, failures {count_reasons(failures)}; see "
                "curation.* and packing.sequence_length"
            )
        rows = pack(examples, s.packing.sequence_length, s.packing.max_documents)
        for start in range(0, len(rows), _SHARD_ROWS):
            commit_shard(ctx.store, ctx.folders.examples, rows[start : start + _SHARD_ROWS])
        for start in range(0, len(examples), _SHARD_ROWS):
            commit_shard(ctx.store, ctx.folders.examples, examples[start : start + _SHARD_ROWS])
        if failures:
            commit_shard(ctx.store, ctx.folders.examples, list(failures.values()))
        line.update(len(examples), len(failures), note=f"{len(rows)} packed batches")
    return {
        "asked": len(examples) + len(failures),
        "made": len(examples),
        "prompt_only": sum(e.objective == PROMPT_ONLY for e in examples),
        "failed": count_reasons(failures),
        "packed_batches": len(rows),
        "tokens": sum(len(e.input_ids) for e in examples),
        "target_tokens": sum(sum(e.loss_mask) for e in examples),
        "padding_share": round(padding_share(rows, s.packing.sequence_length), 4),
    }


def build_examples(
    ctx: RunContext, chains: list[Chain], tokenizer: ChatTokenizer
) -> tuple[list[Example], dict[str, Failure]]:
    """Return the objective's examples, the plain ones beside them, and the failures by id."""
    s = ctx.settings
    plain = prompt_only_chains(chains, s.examples.prompt_only_share, s.run.seed)
    asked = [(s.examples.objective, c) for c in chains] + [(PROMPT_ONLY, c) for c in plain]
    made = [build_example(o, c, tokenizer, s.packing.sequence_length) for o, c in asked]
    examples = [m for m in made if isinstance(m, Example)]
    return examples, {m.key: m for m in made if isinstance(m, Failure)}


def read_chains(ctx: RunContext) -> list[Chain]:
    """Return the kept chains, in the order of their draft ids."""
    prompts = read_prompts(ctx, "train")
    drafts = read_records(ctx.store, ctx.folders.drafts, Draft)
    critiques = read_records(ctx.store, ctx.folders.refinements, Critique)
    refinements = read_records(ctx.store, ctx.folders.refinements, Refinement)
    return [
        Chain(prompts[row.prompt_id], drafts[key], critiques[key], refinements[key])
        for key, row in read_curated(ctx).items()
        if row.rejected is None
    ]
