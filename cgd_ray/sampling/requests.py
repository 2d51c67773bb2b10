"""Prompts -> what the engine is asked, as Arrow rows: pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cgd_ray.examples.chat import ChatTokenizer
from cgd_ray.keys import KeyIndex
from cgd_ray.records import Failure, Prompt
from cgd_ray.sampling.draft import build_draft_messages, draft_id, draft_seed


@dataclass(frozen=True, slots=True)
class DraftOptions:
    """How drafts are drawn."""

    num_drafts: int
    temperature: float
    top_p: float
    max_tokens: int
    max_model_len: int  # prompt and answer together, in tokens
    run_seed: int


REQUESTS = pa.schema(
    [
        pa.field("prompt_record", pa.struct(list(Prompt.SCHEMA)), nullable=False),
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("draft_index", pa.int64(), nullable=False),
        pa.field("draft_seed", pa.int64(), nullable=False),
        pa.field("draft_max_tokens", pa.int64(), nullable=False),
        pa.field("tokenized_prompt", pa.list_(pa.int64()), nullable=False),
        pa.field(
            "sampling_params",
            pa.struct(
                [
                    pa.field("temperature", pa.float64()),
                    pa.field("top_p", pa.float64()),
                    pa.field("max_tokens", pa.int64()),
                    pa.field("seed", pa.int64()),
                ]
            ),
            nullable=False,
        ),
    ]
)


def draft_requests(
    prompts: Sequence[Prompt], done: KeyIndex, tokenizer: ChatTokenizer, options: DraftOptions
) -> tuple[pa.Table, list[Failure]]:
    """Return a row for each draft that is not done, and a failure for each over-long prompt's."""
    limit = options.max_model_len - options.max_tokens
    ids = [draft_id(p.id, i) for p in prompts for i in range(options.num_drafts)]
    known = dict(zip(ids, done.find(ids), strict=True))
    rows: list[dict[str, Any]] = []
    refused: list[Failure] = []
    for prompt in prompts:
        indexes = range(options.num_drafts)
        todo = [i for i in indexes if known[draft_id(prompt.id, i)] is None]
        tokens = tokenizer.encode_prompt(build_draft_messages(prompt)) if todo else []
        if len(tokens) > limit:
            detail = (
                f"{len(tokens)} tokens; student.max_model_len={options.max_model_len} less "
                f"sampling.max_tokens={options.max_tokens} leaves {limit}"
            )
            refused += [
                Failure(draft_id(prompt.id, i), "drafts", "too_long", detail, permanent=True)
                for i in todo
            ]
        else:
            rows += [_request(prompt, i, tokens, options) for i in todo]
    return pa.Table.from_pylist(rows, schema=REQUESTS), refused


def _request(
    prompt: Prompt, index: int, tokens: Sequence[int], options: DraftOptions
) -> dict[str, Any]:
    seed = draft_seed(draft_id(prompt.id, index), options.run_seed)
    return {
        "prompt_record": {name: getattr(prompt, name) for name in Prompt.SCHEMA.names},
        "prompt_id": prompt.id,
        "draft_index": index,
        "draft_seed": seed,
        "draft_max_tokens": options.max_tokens,  # the engine drops its parameters
        "tokenized_prompt": tokens,
        "sampling_params": {
            "temperature": options.temperature,
            "top_p": options.top_p,
            "max_tokens": options.max_tokens,
            "seed": seed,
        },
    }
