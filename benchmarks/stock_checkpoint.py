"""A small job on Ray Data's own checkpoint, as a process that can be killed and run again.

`python -m benchmarks.stock_checkpoint OUTPUT_ROOT` makes numbered rows, adds a column and writes
parquet, with `CheckpointConfig` as Ray documents it, all else at its default.
`commit_faults` kills it.
"""

import sys

import pyarrow as pa
import ray
import ray.data
from ray.data.checkpoint import CheckpointConfig

NUM_ROWS, NUM_SHARDS = 100, 4


def add_draft(rows: pa.Table) -> pa.Table:
    """Return the rows with a text that tells which row it belongs to."""
    return rows.append_column("text", pa.array([f"a draft of {i}" for i in rows["id"].to_pylist()]))


def main(root: str) -> None:
    """Run the job to its end, or until it is killed."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.checkpoint_config = CheckpointConfig(
        id_column="id", checkpoint_path=f"{root}/checkpoint"
    )
    rows = ray.data.range(NUM_ROWS, override_num_blocks=NUM_SHARDS)
    rows.map_batches(add_draft, batch_format="pyarrow").write_parquet(f"{root}/rows")


if __name__ == "__main__":
    main(*sys.argv[1:])
