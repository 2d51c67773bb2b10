"""Refinement -> example: the objectives as data (paper, section 3; CFT is arXiv 2501.17703).

An objective is a list of context turns, without loss, and one target turn, with loss. Turns are
named after the record that fills them. The student's own chat template wraps them; nothing else is
added, and at inference the prompt stands alone.
"""

from dataclasses import dataclass

from cgd_ray.examples.chat import ChatTokenizer
from cgd_ray.prompts.messages import Message
from cgd_ray.records import Critique, Draft, Example, Failure, Prompt, Refinement

TEMPLATE = "examples/v1"

PROMPT_ONLY = "prompt_only"
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
        (("user", "{prompt}"), ("assistant", "{draft}"), ("user", _CRITICISE)), "{critique}"
    ),
    "cgd": Objective(
        (("user", "{prompt}"), ("assistant", "{draft}"), ("user", _REVISE)), "{refinement}"
    ),
    PROMPT_ONLY: Objective((("user", "{prompt}"),), "{refinement}"),
}


def render(objective: str, chain: Chain) -> tuple[list[Message], str] | None:
    """Return the context turns and the target text; None where the chain lacks a text."""
    texts = {
        "{prompt}": chain.prompt.text,
        "{draft}": chain.draft.text,
        "{critique}": chain.critique.text,
        "{refinement}": chain.refinement.text,
        "{solution}": chain.prompt.solution or chain.prompt.reference,
    }
    # Whole-slot substitution, not str.format: model text may hold braces of its own.
    filled: list[str] = []
    chosen = OBJECTIVES[objective]
    for template in (*(text for _, text in chosen.context), chosen.target):
        slot = template.partition("}")[0] + "}" if template.startswith("{") else None
        if slot is None:
            filled.append(template)
            continue
        text = texts[slot]
        if text is None:
            return None
        filled.append(text + template.removeprefix(slot))
    context: list[Message] = [
        {"role": role, "content": text}  # pyright: ignore[reportAssignmentType]
        for (role, _), text in zip(chosen.context, filled, strict=False)
    ]
    return context, filled[-1]


def build_example(
    objective: str, chain: Chain, tokenizer: ChatTokenizer, max_tokens: int
) -> Example | Failure:
    """Return the training document of one chain under an objective.

    Args:
        objective: a key of `OBJECTIVES`.
        chain: prompt, draft, critique and refinement.
        tokenizer: the student's.
        max_tokens: the longest document (`packing.sequence_length`).

    Returns:
        The example, or a permanent failure with reason "no_solution" or "too_long".
    """
    row_id = f"{chain.draft.id}#{objective}"
    rendered = render(objective, chain)
    if rendered is None:
        detail = f"prompt {chain.prompt.id} has neither solution nor reference to learn from"
        return Failure(row_id, "examples", "no_solution", detail, permanent=True)
    input_ids, num_context = tokenizer.encode_example(*rendered)
    if len(input_ids) > max_tokens:
        detail = f"{len(input_ids)} tokens; packing.sequence_length={max_tokens} is the limit"
        return Failure(row_id, "examples", "too_long", detail, permanent=True)
    mask = (0,) * num_context + (1,) * (len(input_ids) - num_context)
    return Example(row_id, objective, tuple(input_ids), mask)
