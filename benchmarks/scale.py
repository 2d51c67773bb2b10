"""Cost a row and driver memory of the whole generation plan, with an echo engine and teacher.

`python -m benchmarks.scale 10000 100000 1000000` runs `cgd generate` on so many prompts, each size
in a fresh folder, and measures what the platform itself costs: no model and no network is in it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.results import write_result

COMMAND = "python -m benchmarks.scale"
_POLL_S = 0.2
_FLAT = 1.2  # cost a row may differ by so much over the sizes
_RUN = """
[run]
name = "scale"
root = "{folder}/store"
work_dir = "{folder}/work"
num_cpus = 8
[prompts]
train = "{folder}/train.jsonl"
test = "{folder}/test.jsonl"
[student]
max_model_len = 512
[sampling]
engine = "echo"
max_tokens = 64
rows_per_request = 1024
[teacher]
backend = "echo"
model = "echo"
num_actors = 2
max_in_flight = 512
[evaluate]
max_tokens = 64
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one size."""

    num_rows: int
    seconds: float  # of drafting and teaching, start-up included
    start_s: float  # until the first rows were committed
    end_s: float  # after the last rows were: sums, Ray's shutdown, exit
    us_per_row: float  # between the two
    driver_peak_mib: float
    store_objects: int
    store_mib: float
    commits: int
    journal_segments: int


def main(sizes: list[int]) -> None:
    """Measure every size and write the result."""
    measured = [measure(size) for size in sizes]
    costs = [figures.us_per_row for figures in measured]
    memory = [figures.driver_peak_mib for figures in measured]
    ratio = max(costs) / min(costs)
    path = write_result(
        "scale",
        f"{COMMAND} {' '.join(map(str, sizes))}",
        ours={f"{figures.num_rows}_rows": asdict(figures) for figures in measured},
        baseline={"us_per_row_at_the_smallest_size": costs[0]},
        ratio=ratio,
        spread={"driver_peak_mib": [min(memory), max(memory)]},
        passed=ratio <= _FLAT and sizes[-1] >= 1_000_000,
    )
    print(path)


def measure(num_rows: int) -> Figures:
    """Generate so many rows in a fresh folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_file = _write_inputs(folder, num_rows)
        _cgd("prompts", run_file)
        begin = time.monotonic()
        generate = _start("generate", run_file, folder / "generate.out")
        peak, start_s, last_s, num_commits = 0.0, 0.0, 0.0, 0
        while generate.poll() is None:
            peak = max(peak, _peak_mib(generate.pid))
            found = _num_commits(folder / "store")
            if found > num_commits:
                last_s = time.monotonic() - begin
                start_s, num_commits = start_s or last_s, found
            time.sleep(_POLL_S)
        seconds = time.monotonic() - begin
        if generate.returncode:
            raise RuntimeError((folder / "generate.out").read_text(encoding="utf-8")[-2000:])
        files = [path for path in (folder / "store").rglob("*") if path.is_file()]
        figures = Figures(
            num_rows=num_rows,
            seconds=round(seconds, 1),
            start_s=round(start_s, 1),
            end_s=round(seconds - last_s, 1),
            us_per_row=round(1e6 * (last_s - start_s) / num_rows, 1),
            driver_peak_mib=round(peak, 1),
            store_objects=len(files),
            store_mib=round(sum(path.stat().st_size for path in files) / 2**20, 1),
            commits=sum(path.parent.name == "commits" for path in files),
            journal_segments=sum(path.suffix == ".segment" for path in files),
        )
    print(figures, flush=True)
    return figures


def _write_inputs(folder: Path, num_rows: int) -> Path:
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        for i in range(num_rows):
            text = f"Train {i} leaves with {7 * i} people and {i % 24} of them get off. Who stays?"
            file.write(json.dumps({"prompt": text, "answer": str(6 * i)}) + "\n")
    (folder / "test.jsonl").write_text('{"prompt": "t", "answer": "1"}\n', encoding="utf-8")
    run_file = folder / "run.toml"
    run_file.write_text(_RUN.format(folder=folder), encoding="utf-8")
    return run_file


def _cgd(verb: str, run_file: Path) -> None:
    subprocess.run([_binary(), verb, run_file], check=True, capture_output=True)


def _start(verb: str, run_file: Path, out: Path) -> subprocess.Popen[bytes]:
    with out.open("wb") as file:
        return subprocess.Popen([_binary(), verb, run_file], stdout=file, stderr=file)


def _binary() -> Path:
    return Path(sys.executable).with_name("cgd")


def _num_commits(store: Path) -> int:
    # The folder's name alone: thousands of names to list would take time from what is measured.
    return sum(len(os.listdir(folder)) for folder in store.glob("refinements-*/commits"))


def _peak_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(x.split()[1]) / 1024 for x in lines if x.startswith("VmHWM")), 0.0)


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [10_000, 100_000, 1_000_000])
