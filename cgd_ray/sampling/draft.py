"""Prompt -> draft: what the student is asked, and how its answer becomes a record.

Paper, section 3: y' ~ S_init(. | x).

The student sees the prompt alone, exactly as it will when it is served.
"""

import hashlib

from cgd_ray.prompts.messages import Message
from cgd_ray.records import Draft, Failure, Prompt

TEMPLATE = "draft/v1"


def build_draft_messages(prompt: Prompt) -> list[Message]:
    """Return the one-turn chat that samples a draft."""
    return [{"role": "user", "content": prompt.text}]


def draft_id(prompt_id: str, index: int) -> str:
    """Return the id of a prompt's draft number `index`."""
    return f"{prompt_id}/{index}"


def draft_seed(row_id: str, run_seed: int) -> int:
    """Return this row's sampling seed, below 2**31: a rerun draws the same draft."""
    return int.from_bytes(hashlib.sha256(f"{run_seed}/{row_id}".encode()).digest()[:4]) >> 1


def parse_draft(
    prompt_id: str, index: int, text: str, finish_reason: str, num_tokens: int, seed: int
) -> Draft | Failure:
    """Return the draft, or a permanent failure if the student said nothing."""
    row_id = draft_id(prompt_id, index)
    if not text.strip():
        detail = f"the student's answer is empty ({num_tokens} tokens, {finish_reason})"
        return Failure(row_id, "drafts", "empty", detail, permanent=True)
    return Draft(row_id, prompt_id, text.strip(), finish_reason, num_tokens, seed)
