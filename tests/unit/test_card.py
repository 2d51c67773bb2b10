"""The model card: what the student was made of, and how it scored."""

from collections.abc import Callable
from typing import Any

from cgd_ray.report.card import model_card, with_scores
from cgd_ray.settings import Settings

EXAMPLES = {"made": 100, "prompt_only": 50, "tokens": 9000, "target_tokens": 3000}


def scores(accuracy: float) -> dict[str, Any]:
    figures = {"accuracy": accuracy, "low": 0.3, "high": 0.5, "num_prompts": 128}
    return {"base": figures, "student": figures, "in_words": f"about {accuracy}", "difference": {}}


def test_the_card_names_data_tokenizer_and_settings(demo: Callable[..., Settings]) -> None:
    card = model_card(demo("train.lora.rank=8"), {**EXAMPLES, "tokenizer": "ab12"}, "examples-77")
    assert "| data | `examples-77` |" in card
    assert "`ab12`" in card
    assert '"rank": 8' in card
    assert "my-bucket" not in card
    assert "s3://" not in card, "where artefacts lie is nobody else's business"


def test_scores_replace_earlier_ones(demo: Callable[..., Settings]) -> None:
    card = model_card(demo(), EXAMPLES, "examples-77")
    once = with_scores(card, scores(0.25))
    assert once.startswith(card)
    assert "| student | 25.0 % | 30.0 to 50.0 | 128 |" in once
    twice = with_scores(once, scores(0.4))
    assert twice == with_scores(card, scores(0.4))
    assert "25.0 %" not in twice
