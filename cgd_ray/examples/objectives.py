"""Refinement -> example: the objectives as data (paper, section 3; CFT is arXiv 2501.17703).

An objective is a list of context turns, without loss, and one target turn, with loss. Turns are
named after the record that fills them. The student's own chat template wraps them; nothing else is
added, and at inference the prompt stands alone. `cgd_no_critique` and `cgd_no_draft` are `cgd` with
a part of the context left out.
"""

import re
from dataclasses import dataclass

from cgd_ray.examples.chat import ChatTokenizer
from cgd_ray.examples.cutting import Parts, cut_end
from cgd_ray.prompts.messages import Message
from cgd_ray.records import Critique, Draft, Example, Failure, Prompt, Refinement
from cgd_ray.settings.examples import TooLong

TEMPLATE = "examples/v2"  # new with any change of words or rules here or in transforms.py

PROMPT_ONLY = "prompt_only"
_DRAFT = "{draft}"
_CORRECT = "Write the corrected answer."
_REVISE = "{critique}\n\nWrite the corrected answer."
_CRITICISE = "Criticise this answer: say what is right and what is wrong in it."


@dataclass(frozen=True, slots=True)
class Chain:
    """All that is known about one draft, as the objectives see it."""

    prompt: Prompt
    draft: Draft
    critique: Critique
    refinement: Refinement


@dataclass(frozen=True, slots=True)
class Objective:
    """What the student sees and what it learns to say; texts are filled from a chain."""

    context: tuple[tuple[str, str], ...]  # (role, text)
    target: str


OBJECTIVES: dict[str, Objective] = {
    "sft": Objective((("user", "{prompt}"),), "{solution}"),
    "distilled_sft": Objective((("user", "{prompt}"),), "{refinement}"),
    "cft": Objective(
        (("user", "{prompt}"), ("assistant", _DRAFT), ("user", _CRITICISE)), "{critique}"
    ),
    "cgd": Objective(
        (("user", "{prompt}"), ("assistant", _DRAFT), ("user", _REVISE)), "{refinement}"
    ),
    "cgd_no_critique": Objective(
        (("user", "{prompt}"), ("assistant", _DRAFT), ("user", _CORRECT)), "{refinement}"
    ),
    "cgd_no_draft": Objective((("user", "{prompt}\n\n" + _REVISE),), "{refinement}"),
    PROMPT_ONLY: Objective((("user", "{prompt}"),), "{refinement}"),
}
_SLOT = re.compile(r"\{(prompt|draft|critique|refinement|solution)\}")


def render(objective: str, chain: Chain) -> tuple[list[Message], str] | None:
    """Return the context turns and the target text; None where the chain lacks a text."""
    texts = {
        "prompt": chain.prompt.text,
        "draft": chain.draft.text,
        "critique": chain.critique.text,
        "refinement": chain.refinement.text,
        "solution": chain.prompt.solution or chain.prompt.reference,
    }
    chosen = OBJECTIVES[objective]
    templates = [text for _, text in chosen.context] + [chosen.target]
    if any(texts[slot] is None for template in templates for slot in _SLOT.findall(template)):
        return None
    # Not str.format: what fills a slot is never looked at again, so braces in it are text.
    filled = [_SLOT.sub(lambda match: texts[match[1]] or "", template) for template in templates]
    context: list[Message] = [
        {"role": role, "content": text}  # pyright: ignore[reportAssignmentType]
        for (role, _), text in zip(chosen.context, filled, strict=False)
    ]
    return context, filled[-1]


def build_example(
    objective: str,
    chain: Chain,
    tokenizer: ChatTokenizer,
    max_tokens: int,
    on_too_long: TooLong = "reject",
    transform: str = "none",
) -> Example | Failure:
    """Return the training document of one chain under an objective.

    Args:
        objective: a key of `OBJECTIVES`.
        chain: prompt, draft, critique and refinement.
        tokenizer: the student's.
        max_tokens: the longest document (`packing.sequence_length`).
        on_too_long: what becomes of a longer one.
        transform: how the chain's critique was spoilt, for the record.

    Returns:
        The example, or a permanent failure with reason "no_solution" or "too_long".
    """
    row_id = f"{chain.draft.id}#{objective}"
    rendered = render(objective, chain)
    if rendered is None:
        detail = f"prompt {chain.prompt.id} has neither solution nor reference to learn from"
        return Failure(row_id, "examples", "no_solution", detail, permanent=True)
    whole = tokenizer.encode_parts(*rendered)
    num_tokens = sum(map(len, whole))
    parts = _fitted(objective, whole, max_tokens, on_too_long)
    if parts is None:
        detail = f"{num_tokens} tokens; packing.sequence_length={max_tokens} is the limit"
        return Failure(row_id, "examples", "too_long", detail, permanent=True)
    input_ids = tuple(token for part in parts for token in part)
    num_targets = len(parts[-1])
    mask = (0,) * (len(input_ids) - num_targets) + (1,) * num_targets
    num_cut = num_tokens - len(input_ids)
    return Example(row_id, objective, input_ids, mask, transform, num_cut)


def _fitted(objective: str, parts: Parts, max_tokens: int, on_too_long: TooLong) -> Parts | None:
    """Return the parts of a document within the limit; None if it is to be rejected."""
    if sum(map(len, parts)) <= max_tokens:
        return parts
    if on_too_long == "cut_target":
        return cut_end(parts, len(parts) - 1, 1, max_tokens)
    turns = [text for _, text in OBJECTIVES[objective].context]
    if on_too_long == "cut_draft" and _DRAFT in turns:
        return cut_end(parts, 2 * turns.index(_DRAFT) + 1, 0, max_tokens)
    return None
