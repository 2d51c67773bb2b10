"""Known prices, what a call can cost, and the estimate of a run."""

import pytest

from cgd_ray.errors import UserError
from cgd_ray.settings import TeacherSettings
from cgd_ray.teacher.prices import (
    FREE,
    Price,
    check_budget,
    cost_usd,
    describe,
    estimate_cost,
    estimate_input_tokens,
    price_of,
    worst_usd,
)
from tests.support.records import completion


def settings(**values: object) -> TeacherSettings:
    return TeacherSettings.model_validate(values)


@pytest.mark.parametrize(
    ("values", "price"),
    [
        ({"model": "gpt-4o"}, Price(2.5, 1.25, 10)),
        ({"model": "gpt-4o-2024-08-06"}, Price(2.5, 1.25, 10)),
        ({"model": "gpt-4o-2024-05-13"}, Price(5, 5, 15)),
        ({"model": "gpt-4.1-mini", "base_url": "https://api.openai.com/v1"}, Price(0.4, 0.1, 1.6)),
        ({"model": "gpt-4.1-mini", "mode": "batch"}, Price(0.2, 0.05, 0.8)),
        (
            {"backend": "anthropic", "model": "claude-sonnet-4-5-20250929"},
            Price(3, 0.3, 15, 3.75),
        ),
        ({"backend": "anthropic", "model": "claude-opus-4-1"}, Price(15, 1.5, 75, 18.75)),
        (
            {"backend": "bedrock", "model": "us.meta.llama3-3-70b-instruct-v1:0"},
            Price(0.72, 0.72, 0.72),
        ),
        ({"backend": "echo"}, FREE),
        ({"model": "gpt-99"}, None),
        ({"model": "gpt-4.1-mini-of-ours"}, None),
        ({"model": "gpt-4o", "base_url": "http://10.0.0.7:8000/v1"}, None),
        (
            {
                "backend": "bedrock",
                "model": "meta.llama3-3-70b-instruct-v1:0",
                "region": "eu-west-1",
            },
            None,
        ),
    ],
)
def test_the_table_knows_the_providers_own_models(values: dict, price: Price | None) -> None:
    assert price_of(settings(**values)) == price


def test_prices_in_the_settings_win() -> None:
    own = {"usd_per_million_input_tokens": 1, "usd_per_million_output_tokens": 0}
    assert price_of(settings(**own)) == Price(1, 1, 0)
    assert price_of(settings(**own, usd_per_million_cached_tokens=0.5)) == Price(1, 0.5, 0)
    assert price_of(settings(usd_per_million_cached_tokens=0)) == Price(2.5, 0, 10)


@pytest.mark.parametrize(
    "values",
    [
        {"usd_per_million_input_tokens": 1},
        {"usd_per_million_output_tokens": 1},
        {"usd_per_million_cached_tokens": 1, "model": "gpt-99"},
    ],
)
def test_half_a_price_is_refused_in_one_line(values: dict) -> None:
    with pytest.raises(UserError, match=r"^teacher\.usd_per_million_\w+_tokens .*$") as caught:
        price_of(settings(**values))
    assert "\n" not in str(caught.value)


def test_a_cap_needs_a_price() -> None:
    check_budget(settings(model="gpt-99"), None)
    check_budget(settings(max_usd=5), FREE)
    with pytest.raises(UserError, match=r"max_usd=5 .*gpt-99.*usd_per_million_input_tokens"):
        check_budget(settings(model="gpt-99", max_usd=5), None)


def test_what_an_answer_cost() -> None:
    used = {"num_input_tokens": 1000, "num_cached_tokens": 400, "num_output_tokens": 100}
    assert cost_usd(Price(2, 0.5, 8), completion(**used)) == pytest.approx(
        (600 * 2 + 400 * 0.5 + 100 * 8) / 1e6
    )
    assert cost_usd(Price(2, 0.5, 8, 2.5), completion(**used)) == pytest.approx(
        (600 * 2.5 + 400 * 0.5 + 100 * 8) / 1e6
    )


@pytest.mark.parametrize("text", ["plain words of English", "1+1=2" * 50, "数学の問題" * 20, ""])
def test_no_tokenizer_makes_more_tokens_than_a_call_is_charged_at_worst(text: str) -> None:
    worst = worst_usd(Price(1e6, 0, 0), [{"role": "user", "content": text}], 0)
    assert worst >= len(text.encode())  # one token a byte, the most of any byte-level vocabulary
    assert worst_usd(Price(0, 0, 1e6), [{"role": "user", "content": text}], 77) == 77


def test_tokens_are_estimated_from_lengths() -> None:
    assert estimate_input_tokens([]) == 0
    assert estimate_input_tokens([{"role": "user", "content": "x" * 400}]) == 104


def test_a_run_is_estimated_from_a_sample_of_its_rows() -> None:
    sample_in, sample_out = [(100, 300), (200, 400), (300, 500)], [(10, 20), (20, 30), (30, 40)]
    made = estimate_cost(sample_in, sample_out, 1000, Price(2, 0.5, 8))
    assert (made.input_tokens, made.output_tokens) == (600_000, 50_000)
    assert made.usd == pytest.approx(1.6)
    # Rows cost 1040, 1600 and 2160 millionths: a standard error of 560 / sqrt(3).
    assert made.usd_low == pytest.approx(1.6 - 1.96 * 0.56 / 3**0.5)
    assert made.usd_high == pytest.approx(1.6 + 1.96 * 0.56 / 3**0.5)
    assert describe(made) == (
        "1,000 rows: about 600,000 input and 50,000 output tokens, from 3 sampled; "
        "$1.60 (95 % interval $0.97 to $2.23)"
    )


def test_an_unknown_price_is_said_and_never_zero() -> None:
    made = estimate_cost([(100, 300)], [(10, 20)], 10, None)
    assert made.usd is None
    assert "cost unknown" in describe(made)
    assert "no interval" in describe(estimate_cost([(100, 300)], [(10, 20)], 10, Price(1, 1, 1)))


def test_an_empty_sample_tells_nothing() -> None:
    with pytest.raises(ValueError, match="at least one"):
        estimate_cost([], [], 10, None)
