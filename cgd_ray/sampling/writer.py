"""Engine answers -> committed drafts: a plain function that a Ray Data task runs."""

from typing import Any

import pyarrow as pa

from cgd_ray.records import Draft, Failure
from cgd_ray.sampling.answers import is_quarantined
from cgd_ray.sampling.draft import draft_id, parse_draft
from cgd_ray.shards import commit_shard, counts_table
from cgd_ray.store import open_store


def write_drafts(batch: pa.Table, root: str, folder: str) -> pa.Table:
    """Commit the drafts and failures of a table of engine answers; return counts.

    Args:
        batch: rows as `sampling.processor` leaves them.
        root: of the store.
        folder: of the stage.
    """
    records = [_outcome(row) for row in batch.to_pylist()]
    commit_shard(open_store(root), folder, records)
    failed = sum(isinstance(record, Failure) for record in records)
    return counts_table(len(records) - failed, failed)


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
