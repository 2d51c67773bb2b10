"""What a run's teacher has cost."""

from cgd_ray.pipeline.context import RunContext
from cgd_ray.teacher.journal import JOURNAL, read_usage
from cgd_ray.teacher.prices import price_of, tokens_usd


def journal_folder(ctx: RunContext) -> str:
    """Return where this run's own paid answers are."""
    return f"{JOURNAL}/{ctx.folders.refinements}"


def spent_usd(ctx: RunContext) -> float:
    """Return what this run's answers have cost: the journal holds every one that was paid.

    0 where the price is not known.
    """
    price = price_of(ctx.settings.teacher)
    used = read_usage(ctx.store, journal_folder(ctx))
    tokens = (used.num_input_tokens, used.num_cached_tokens, used.num_output_tokens)
    return tokens_usd(price, *tokens) if price else 0.0
