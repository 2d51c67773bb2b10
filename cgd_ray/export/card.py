"""The card of an exported data set: what it holds, how it was made, and what is left to say."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cgd_ray.identity import fingerprint
from cgd_ray.prompts.messages import Message
from cgd_ray.records import Critique, Draft, Prompt
from cgd_ray.sampling.draft import TEMPLATE as DRAFT
from cgd_ray.sampling.draft import build_draft_messages
from cgd_ray.teacher.critique import TEMPLATE as CRITIQUE
from cgd_ray.teacher.critique import build_critique_messages
from cgd_ray.teacher.refinement import TEMPLATE as REFINEMENT
from cgd_ray.teacher.refinement import build_refinement_messages


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card states."""

    name: str
    student: str
    teacher: str
    sources: tuple[str, ...]
    finished: bool  # whether generation was, when the chains were exported
    counts: Mapping[str, int]  # records by stage
    reasons: Mapping[str, Mapping[str, int]]  # failed or rejected rows by stage and reason
    tokens: Mapping[str, int]  # by use
    usd: float | None  # what the teacher cost; None: its prices are not known
    settings: Mapping[str, Any]  # of the stages that made the chains


def dataset_card(facts: CardFacts) -> str:
    """Return the card as Markdown, with the header that `datasets.load_dataset` reads."""
    state = "" if facts.finished else "\nGeneration was not finished when this was exported.\n"
    cost = "not known" if facts.usd is None else f"{facts.usd:.2f} US dollars"
    settings = json.dumps(facts.settings, indent=2, ensure_ascii=False)
    return f"""{_header(facts.name)}
# {facts.name}

Chains of Critique-Guided Distillation (arXiv 2505.11628), made by cgd_ray: a student drafts an
answer to each prompt, a teacher criticises the draft and writes a refined answer. One row is one
whole chain; `rejected` says why a chain was not used for training (null: it was, or it was not
verified).
{state}
| | |
|---|---|
| student | {_cell(facts.student)} |
| teacher | {_cell(facts.teacher)} |
| prompts from | {_cell(", ".join(facts.sources))} |
| teacher's cost | {cost} |

## Licence

**FILL IN.** The terms of the prompts' sources and of the teacher's provider decide; cgd_ray does
not know them. Then set `license:` in the header.

## Counts

| | rows |
|---|---|
{_rows(facts.counts)}

Rows that are not here, or are marked as rejected:

| stage | reason | rows |
|---|---|---|
{_reason_rows(facts.reasons)}

| tokens | |
|---|---|
{_rows(facts.tokens)}

## Templates

| template | SHA-256 of the rendered chat, first 12 digits |
|---|---|
{_rows(template_hashes())}

## Settings

```json
{settings}
```
"""


def _header(name: str) -> str:
    return f"""---
# license: FILL IN before you publish, see "Licence" below
pretty_name: {json.dumps(name)}
tags:
- critique-guided-distillation
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---
"""


def template_hashes() -> dict[str, str]:
    """Return a hash of each template as rendered, by version: its words, whatever it is called."""
    prompt = Prompt("p", "{prompt}", None, None, "", "train")
    draft = Draft("p/0", "p", "{draft}", "stop", 0, 0)
    critique = Critique("p/0", "{critique}", "", CRITIQUE, 0, 0, 0)
    rendered: dict[str, list[Message]] = {
        DRAFT: build_draft_messages(prompt),
        CRITIQUE: build_critique_messages(prompt, draft),
        REFINEMENT: build_refinement_messages(prompt, draft, critique),
    }
    return {version: fingerprint(chat) for version, chat in rendered.items()}


def _rows(values: Mapping[str, object]) -> str:
    return "\n".join(f"| {_cell(name)} | {value} |" for name, value in values.items())


def _reason_rows(reasons: Mapping[str, Mapping[str, int]]) -> str:
    return "\n".join(
        f"| {stage} | {_cell(reason)} | {number} |"
        for stage, by_reason in reasons.items()
        for reason, number in by_reason.items()
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
