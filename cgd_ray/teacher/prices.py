"""What a teacher's call costs: known prices, the bounds of a call, the estimate of a run.

A price that is not known is None and never 0: only the settings can say that a teacher is free.
"""

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlparse

from cgd_ray.errors import UserError
from cgd_ray.prompts.messages import Message
from cgd_ray.settings import TeacherSettings
from cgd_ray.teacher.completion import Completion

_CHARACTERS_A_TOKEN = 4.0  # English under the usual vocabularies
_TOKENS_A_MESSAGE = 4  # the template's own, around each turn
_MOST_TOKENS_A_MESSAGE = 16
_BATCH_DISCOUNT = 0.5


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars a million tokens."""

    input: float
    cached: float  # input that the provider's prompt cache served
    output: float
    cache_write: float = 0.0  # input that is put into that cache, where this costs extra


FREE = Price(0.0, 0.0, 0.0)

# Published list prices, read on 2026-11-22. Providers change them: the settings win.
_OPENAI = {
    "gpt-4o": Price(2.50, 1.25, 10.00),
    "gpt-4o-2024-05-13": Price(5.00, 5.00, 15.00),
    "gpt-4o-mini": Price(0.15, 0.075, 0.60),
    "gpt-4.1": Price(2.00, 0.50, 8.00),
    "gpt-4.1-mini": Price(0.40, 0.10, 1.60),
    "gpt-4.1-nano": Price(0.10, 0.025, 0.40),
}


def _claude(input_usd: float, output_usd: float) -> Price:
    # Anthropic's factors: a cache read costs a tenth of the input, a five-minute write 1.25 of it.
    return Price(input_usd, input_usd / 10, output_usd, input_usd * 1.25)


_ANTHROPIC = {
    "claude-3-haiku": Price(0.25, 0.03, 1.25, 0.30),
    "claude-3-5-haiku": _claude(0.80, 4),
    "claude-3-7-sonnet": _claude(3, 15),
    "claude-sonnet-4": _claude(3, 15),
    "claude-sonnet-4-0": _claude(3, 15),
    "claude-sonnet-4-5": _claude(3, 15),
    "claude-sonnet-4-6": _claude(3, 15),
    "claude-haiku-4-5": _claude(1, 5),
    "claude-opus-4": _claude(15, 75),
    "claude-opus-4-0": _claude(15, 75),
    "claude-opus-4-1": _claude(15, 75),
    "claude-opus-4-5": _claude(5, 25),
    "claude-opus-4-6": _claude(5, 25),
}
# On demand in regions of the USA; newer models cost more in some regions, so they are left out.
_BEDROCK = {
    "llama3-3-70b-instruct": Price(0.72, 0.72, 0.72),
    "claude-3-5-haiku": _claude(0.80, 4),
    "claude-3-7-sonnet": _claude(3, 15),
    "claude-sonnet-4": _claude(3, 15),
}
_TABLES = {"openai": _OPENAI, "anthropic": _ANTHROPIC, "bedrock": _BEDROCK}
_HOSTS = {"openai": "api.openai.com", "anthropic": "api.anthropic.com", "bedrock": ".amazonaws.com"}
_PREFIX = re.compile(r"^(us\.)?((anthropic|meta)\.)?")
_SUFFIX = re.compile(r"(-\d{4}-\d\d-\d\d|-\d{8}|-latest)?(-v\d+(:\d+)?)?$")


def price_of(settings: TeacherSettings) -> Price | None:
    """Return the price of the teacher that the settings name; None if nobody knows it.

    Prices in the settings win, and are taken as they are. The table serves the providers' own
    addresses only: another server of the same model has its own price.

    Raises:
        UserError: one of the two prices is set without the other.
    """
    given = settings.usd_per_million_input_tokens, settings.usd_per_million_output_tokens
    known = _listed(settings)
    cached = settings.usd_per_million_cached_tokens
    if given[0] is not None and given[1] is not None:
        return Price(given[0], given[0] if cached is None else cached, given[1])
    names = "teacher.usd_per_million_input_tokens", "teacher.usd_per_million_output_tokens"
    if given != (None, None):
        there, missing = names if given[1] is None else names[::-1]
        raise UserError(f"{there} is set and {missing} is not: set both, or neither")
    if cached is not None and known is not None:
        return Price(known.input, cached, known.output, known.cache_write)
    if cached is not None:
        raise UserError(f"teacher.usd_per_million_cached_tokens needs {names[0]} and {names[1]}")
    return known


def check_budget(settings: TeacherSettings, price: Price | None) -> None:
    """Refuse a cap on money where the price is not known.

    Raises:
        UserError: it is not.
    """
    if settings.max_usd is not None and price is None:
        raise UserError(
            f"teacher.max_usd={settings.max_usd:g} needs a price, and none is known for "
            f"teacher.model={settings.model}: set teacher.usd_per_million_input_tokens and "
            "teacher.usd_per_million_output_tokens (0 for a server of your own)"
        )


def _listed(settings: TeacherSettings) -> Price | None:
    if settings.backend == "echo":
        return FREE
    table = _TABLES.get(settings.backend)
    if table is None or not _is_provider(settings):
        return None
    plain = _SUFFIX.sub("", _PREFIX.sub("", settings.model))
    price = table.get(settings.model) or table.get(plain)
    if price is None or settings.mode != "batch":
        return price
    half = (x * _BATCH_DISCOUNT for x in (price.input, price.cached, price.output))
    return Price(*half, cache_write=price.cache_write * _BATCH_DISCOUNT)


def _is_provider(settings: TeacherSettings) -> bool:
    if settings.backend == "bedrock" and not (settings.region or "us-").startswith("us-"):
        return False
    host = urlparse(settings.base_url or "").hostname
    return host is None or host.endswith(_HOSTS[settings.backend])


def cost_usd(price: Price, answer: Completion) -> float:
    """Return what an answer cost, in dollars.

    Input outside the cache is taken as written to it where that costs more: an answer does not say
    which part was.
    """
    return tokens_usd(
        price, answer.num_input_tokens, answer.num_cached_tokens, answer.num_output_tokens
    )


def tokens_usd(price: Price, num_input: int, num_cached: int, num_output: int) -> float:
    """Return what tokens cost, in dollars; the cached ones are part of the input."""
    fresh = max(0, num_input - num_cached)
    dollars = fresh * max(price.input, price.cache_write) + num_cached * price.cached
    return (dollars + num_output * price.output) / 1e6


def worst_usd(price: Price, messages: Sequence[Message], max_tokens: int) -> float:
    """Return what a call can cost at most: no input cached, as long an answer as allowed.

    A token stands for at least one byte of text, so the bytes bound the input.
    """
    tokens = sum(len(m["content"].encode("utf-8", "replace")) for m in messages)
    tokens += _MOST_TOKENS_A_MESSAGE * (len(messages) + 1)
    most = max(price.input, price.cached, price.cache_write)
    return (tokens * most + max_tokens * price.output) / 1e6


def estimate_input_tokens(messages: Sequence[Message]) -> int:
    """Return about how many tokens a chat has, from the lengths of its messages alone."""
    characters = sum(len(m["content"]) for m in messages)
    return math.ceil(characters / _CHARACTERS_A_TOKEN) + _TOKENS_A_MESSAGE * len(messages)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run's teacher calls will use, told from a sample of rows; 95 % intervals."""

    num_rows: int
    num_sampled: int
    input_tokens: float  # of the whole run
    output_tokens: float
    usd: float | None  # None: the price is not known
    usd_low: float | None
    usd_high: float | None


def estimate_cost(
    sample_input_tokens: Sequence[Sequence[int]],
    sample_output_tokens: Sequence[Sequence[int]],
    num_rows: int,
    price: Price | None,
) -> Estimate:
    """Return the estimate of a whole run.

    Nothing counts as cached, and retries are left out.

    Args:
        sample_input_tokens: for each sampled row, the input tokens of each of its calls.
        sample_output_tokens: for each sampled row, the output tokens of each of its calls.
        num_rows: of the whole run.
        price: of the teacher.

    Raises:
        ValueError: the sample is empty, or the two differ in length.
    """
    inputs = [sum(calls) for calls in sample_input_tokens]
    outputs = [sum(calls) for calls in sample_output_tokens]
    rows = list(zip(inputs, outputs, strict=True))
    if not rows:
        raise ValueError("an estimate needs at least one sampled row")
    tokens = num_rows * statistics.fmean(inputs), num_rows * statistics.fmean(outputs)
    if price is None:
        return Estimate(num_rows, len(rows), *tokens, None, None, None)
    costs = [(i * max(price.input, price.cache_write) + o * price.output) / 1e6 for i, o in rows]
    mean = statistics.fmean(costs)
    wide = 1.96 * statistics.stdev(costs) / math.sqrt(len(rows)) if len(rows) > 1 else math.inf
    low, high = max(0.0, mean - wide), mean + wide
    return Estimate(num_rows, len(rows), *tokens, *(num_rows * x for x in (mean, low, high)))


def describe(estimate: Estimate) -> str:
    """Return an estimate as one line."""
    e = estimate
    tokens = (
        f"{e.num_rows:,} rows: about {e.input_tokens:,.0f} input and {e.output_tokens:,.0f} output "
        f"tokens, from {e.num_sampled} sampled"
    )
    if e.usd is None or e.usd_low is None or e.usd_high is None:
        return f"{tokens}; cost unknown: set teacher.usd_per_million_*_tokens"
    if math.isinf(e.usd_high):
        return f"{tokens}; about ${e.usd:,.2f} (one row tells no interval)"
    return f"{tokens}; ${e.usd:,.2f} (95 % interval ${e.usd_low:,.2f} to ${e.usd_high:,.2f})"
