"""Rows as the plan hands them to the sampler, small enough to check by eye."""

import pyarrow as pa


def draft_rows(num_rows: int) -> pa.Table:
    """Return one row for each of `p0`, `p1`, ...: tokens `[i, i + 1]`, seed `i`."""
    return pa.Table.from_pylist(
        [
            {
                "prompt_id": f"p{i}",
                "draft_index": 0,
                "draft_seed": i,
                "draft_max_tokens": 8,
                "prompt_record": {"id": f"p{i}", "reference": None if i % 2 else str(i)},
                "tokenized_prompt": [3 + i, 4 + i],
                "sampling_params": {"temperature": 0.7, "max_tokens": 8, "seed": i},
            }
            for i in range(num_rows)
        ]
    )
