"""Engine answers -> committed drafts: a plain function that a Ray Data task runs."""

from typing import Any, Protocol

import pyarrow as pa

from cgd_ray.records import Draft, Failure, Prompt, from_rows
from cgd_ray.sampling.answers import is_quarantined
from cgd_ray.sampling.draft import draft_id, parse_draft
from cgd_ray.shards import commit_shard
from cgd_ray.store import open_store
from cgd_ray.teacher.rows import teacher_rows


class Count(Protocol):
    """Is told what was committed."""

    def __call__(
        self, made: int, failed: int, prompt_tokens: int = 0, generated_tokens: int = 0
    ) -> None:
        """Add rows and tokens."""
        ...


def write_drafts(
    batch: pa.Table, root: str, folder: str, count: Count, *, hand_on: bool
) -> pa.Table:
    """Commit the drafts and failures of a table of engine answers; return the teacher's rows.

    Args:
        batch: rows as `sampling.processor` leaves them, with their `prompt_record`.
        root: of the store.
        folder: of the stage.
        count: is told what was committed.
        hand_on: whether a teacher waits for the drafts; if not, no rows are returned.
    """
    rows = batch.to_pylist()
    outcomes = [_outcome(row) for row in rows]
    if outcomes:
        commit_shard(open_store(root), folder, outcomes)
    drafts = [made for made in outcomes if isinstance(made, Draft)]
    prompt_tokens = sum(row["num_prompt_tokens"] for row in rows)
    generated_tokens = sum(draft.num_tokens for draft in drafts)
    count(len(drafts), len(outcomes) - len(drafts), prompt_tokens, generated_tokens)
    if not hand_on:
        return teacher_rows([], [])
    drafted = [
        row["prompt_record"]
        for row, made in zip(rows, outcomes, strict=True)
        if isinstance(made, Draft)
    ]
    return teacher_rows(from_rows(drafted, Prompt), drafts)


def _outcome(row: dict[str, Any]) -> Draft | Failure:
    prompt_id, index = row["prompt_id"], row["draft_index"]
    error = row.get("__inference_error__")
    if error:
        line = " ".join(str(error).split())[:300]
        poison = is_quarantined(line)
        reason = "poison" if poison else "engine_error"
        return Failure(draft_id(prompt_id, index), "drafts", reason, line, permanent=poison)
    num_tokens = int(row["num_generated_tokens"])
    finish_reason = "length" if num_tokens >= row["draft_max_tokens"] else "stop"
    return parse_draft(
        prompt_id, index, row["generated_text"], finish_reason, num_tokens, row["draft_seed"]
    )
