"""The model card that is saved with a trained student."""

import json
from collections.abc import Mapping
from typing import Any

from cgd_ray.settings import Settings

_SCORES = "\n## Scores\n\n"


def model_card(settings: Settings, examples: dict[str, Any], data: str) -> str:
    """Return the card as Markdown: what it was trained on, how, and what it expects.

    Args:
        settings: the run's.
        examples: the summary of the examples stage.
        data: the examples' folder, whose name is a hash of all that they follow from.
    """
    s = settings
    return f"""---
base_model: {s.student.model}
tags: [critique-guided-distillation]
---

# {s.run.name}

{s.student.model}, fine-tuned by cgd_ray with the `{s.examples.objective}` objective of
Critique-Guided Distillation (arXiv 2505.11628). Ask it with the prompt alone, through its own chat
template: no critique, no special prompt.

| | |
|---|---|
| teacher | {s.teacher.model} |
| data | `{data}` |
| tokenizer and chat template | `{examples.get("tokenizer")}` |
| examples | {examples.get("made")} ({examples.get("prompt_only")} prompt-only) |
| tokens | {examples.get("tokens")}, {examples.get("target_tokens")} of them targets |
| epochs | {s.train.num_epochs} |
| learning rate | {s.train.learning_rate:g}, cosine, warm-up {s.train.warmup_ratio:g} |
| seed | {s.run.seed} |

## Settings

```json
{_settings(s)}
```
"""


def with_scores(card: str, scores: Mapping[str, Any]) -> str:
    """Return a card that ends with an evaluation's results, in place of earlier ones.

    Args:
        card: as `model_card` or this function made it.
        scores: the summary of the evaluation stage.
    """
    rows: list[str] = []
    for model in ("base", "student"):
        mean, low, high = (
            f"{100 * scores[model][name]:.1f}" for name in ("accuracy", "low", "high")
        )
        rows.append(f"| {model} | {mean} % | {low} to {high} | {scores[model]['num_prompts']} |")
    table = "\n".join(["| | accuracy | 95 % interval | prompts |", "|---|---|---|---|", *rows])
    return f"{card.partition(_SCORES)[0]}{_SCORES}{table}\n\n{scores['in_words']}\n"


def _settings(settings: Settings) -> str:
    """Return the settings that the weights follow from, as JSON."""
    sections = ("student", "examples", "packing", "train")
    return json.dumps(settings.model_dump(mode="json", include=set(sections)), indent=1)
