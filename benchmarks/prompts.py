"""Rows a CPU second and memory of loading prompts, for 10^4, 10^5 and 10^6 rows of jsonl.

Each size is read in a process of its own, whose peak memory is its own. Reading alone is compared
with `json.loads` over the same lines; then the rows are committed to a local store as well.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.results import write_result
from cgd_ray.prompts.sources import load_prompts
from cgd_ray.settings import PromptSettings
from cgd_ray.shards import commit_shard
from cgd_ray.store import open_store

SIZES = (10_000, 100_000, 1_000_000)
COMMAND = "python -m benchmarks.prompts"


def main() -> None:
    """Measure every size and write the result."""
    with tempfile.TemporaryDirectory() as folder:
        measured = {size: _in_its_own_process(_write(Path(folder), size)) for size in SIZES}
    for size, figures in measured.items():
        print(size, figures)
    smallest, largest = measured[SIZES[0]], measured[SIZES[-1]]
    ours = {f"{size}_rows": figures for size, figures in measured.items()}
    ratio = largest["read_rows_per_cpu_s"] / largest["json_rows_per_cpu_s"]
    growth = largest["peak_mib"] - smallest["peak_mib"]
    spread = {"growth_of_peak_mib_from_10^4_to_10^6_rows": round(growth, 1)}
    baseline = {"json_rows_per_cpu_s": largest["json_rows_per_cpu_s"]}
    path = write_result("prompts", COMMAND, ours, baseline, ratio, spread, passed=growth < 256)
    print(path)


def _write(folder: Path, size: int) -> Path:
    path = folder / f"{size}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for i in range(size):
            middle = "goes on " * 20
            text = f"Train {i} leaves at {i % 24} with {7 * i} people, {middle}. How many are left?"
            file.write(json.dumps({"prompt": text, "answer": str(i)}) + "\n")
    (folder / "test.jsonl").write_text('{"prompt": "t", "answer": "1"}\n', encoding="utf-8")
    return path


def _in_its_own_process(path: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.prompts", str(path)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def _measure(path: Path) -> dict[str, float]:
    start_mib = _peak_mib()
    settings = PromptSettings(train=str(path), test=str(path.parent / "test.jsonl"))
    begin = time.process_time()
    num_rows = sum(len(chunk.records) for chunk in load_prompts(settings, 1)) - 1
    read_s, read_mib = time.process_time() - begin, _peak_mib()
    begin = time.process_time()
    with path.open(encoding="utf-8") as file:
        for line in file:
            json.loads(line)
    json_s = time.process_time() - begin
    begin = time.process_time()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        store = open_store(folder)
        for chunk in load_prompts(settings, 1):
            commit_shard(store, "prompts", [*chunk.records, *chunk.failures])
    return {
        "read_rows_per_cpu_s": round(num_rows / read_s),
        "json_rows_per_cpu_s": round(num_rows / json_s),
        "read_and_commit_rows_per_cpu_s": round(num_rows / (time.process_time() - begin)),
        "start_mib": round(start_mib, 1),
        "read_peak_mib": round(read_mib, 1),
        "peak_mib": round(_peak_mib(), 1),
    }


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(_measure(Path(sys.argv[1]))))
    else:
        main()
