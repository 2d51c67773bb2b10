"""Our sampler's output tokens a second over raw `vllm.LLM.generate`, and what Ray costs a row.

Same prompts, seeds, parameters and engine arguments. Each repeat is a fresh process with a fresh
engine, raw and ours in turn; the clock starts when the engine is up (ours: at the first marker that
an attempt leaves) and stops when the driver holds the last row.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.results import write_result
from cgd_ray.sampling.draft import draft_seed
from cgd_ray.sampling.engine import engine_environment, engine_kwargs, pool_shape
from cgd_ray.settings import EMBEDDED_STUDENT, SamplingSettings, StudentSettings
from cgd_ray.student import chat_tokenizer, student_source

GOAL = 0.95
MAX_TOKENS = 128
STUDENT = StudentSettings(max_model_len=1024)
ECHO_ROWS = 100_000


def main() -> None:
    """Run both in turn and write the result file; with `--kind`, one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=["raw", "plan", "echo"])
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows-per-request", type=int, default=16)
    parser.add_argument("--max-num-seqs", type=int, default=64)
    arguments = parser.parse_args()
    sampling = SamplingSettings(
        rows_per_request=arguments.rows_per_request,
        max_num_seqs=arguments.max_num_seqs,
        max_tokens=MAX_TOKENS,
    )
    if arguments.kind:
        measure = {"raw": _raw, "plan": _plan, "echo": _echo}[arguments.kind]
        print("RESULT " + json.dumps(measure(arguments.prompts, sampling)))
        return
    _compare(arguments, sampling)


def _compare(arguments: argparse.Namespace, sampling: SamplingSettings) -> None:
    load_before = os.getloadavg()[0]
    raw, ours = [], []
    for _ in range(arguments.repeats):
        raw.append(_in_process("raw"))
        ours.append(_in_process("plan"))
    echo = _in_process("echo")
    ratios = [
        mine["tokens_per_s"] / theirs["tokens_per_s"]
        for mine, theirs in zip(ours, raw, strict=True)
    ]
    ratio = statistics.median(ratios)
    path = write_result(
        "sampling",
        "python -m benchmarks.sampling " + " ".join(sys.argv[1:]),
        ours={
            "runs": ours,
            "echo": echo,
            "rows_per_request": sampling.rows_per_request,
            "max_num_seqs": sampling.max_num_seqs,
            "max_concurrent_batches": pool_shape(sampling).max_concurrent_batches,
            "load_average_before": load_before,
            "load_average_after": os.getloadavg()[0],
        },
        baseline={"runs": raw},
        ratio=ratio,
        spread={"min": min(ratios), "max": max(ratios)},
        # A trial run of fewer prompts or repeats shows that the script works, and no more.
        passed=ratio >= GOAL and arguments.repeats >= 3 and arguments.prompts >= 128,
    )
    print(path, ratios, echo)


def _in_process(kind: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.sampling", *sys.argv[1:], "--kind", kind]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    line = next(x for x in done.stdout.splitlines() if x.startswith("RESULT "))
    print(kind, line, flush=True)
    return json.loads(line.removeprefix("RESULT "))


def _rows(num_prompts: int, source: str, sampling: SamplingSettings) -> pa.Table:
    tokenizer = chat_tokenizer(source)
    rows: list[dict[str, Any]] = []
    for i in range(num_prompts):
        text = (
            f"A shelf holds {17 + i} books and {3 * i + 5} are added. Explain how many there are."
        )
        seed = draft_seed(f"p{i}/0", 0)
        rows.append(
            {
                "prompt_id": f"p{i}",
                "draft_index": 0,
                "tokenized_prompt": tokenizer.encode_prompt([{"role": "user", "content": text}]),
                "sampling_params": {
                    "temperature": sampling.temperature,
                    "top_p": sampling.top_p,
                    "max_tokens": MAX_TOKENS,
                    "seed": seed,
                },
            }
        )
    return pa.Table.from_pylist(rows)


def _raw(num_prompts: int, sampling: SamplingSettings) -> dict[str, Any]:
    os.environ.update(engine_environment(sampling.kv_cache_gib, on_gpu=False))
    from vllm import LLM, SamplingParams

    source = _source()
    rows = _rows(num_prompts, source, sampling).to_pylist()
    engine = LLM(model=source, **engine_kwargs(sampling, STUDENT, on_gpu=False))
    start = time.perf_counter()
    answers = engine.generate(
        [{"prompt_token_ids": row["tokenized_prompt"]} for row in rows],
        [SamplingParams(**row["sampling_params"]) for row in rows],
        use_tqdm=False,
    )
    seconds = time.perf_counter() - start
    return _figures(sum(len(answer.outputs[0].token_ids) for answer in answers), seconds)


def _plan(num_prompts: int, sampling: SamplingSettings) -> dict[str, Any]:
    source = _source()
    rows = _rows(num_prompts, source, sampling)
    seconds, answered = _run_plan(rows, source, sampling)
    return _figures(sum(row["num_generated_tokens"] for row in answered), seconds)


def _echo(num_prompts: int, sampling: SamplingSettings) -> dict[str, Any]:
    """Return what a row costs where the engine costs nothing, at an engine's own shape."""
    del num_prompts
    one = {
        "draft_index": 0,
        "tokenized_prompt": list(range(100)),
        "sampling_params": {"temperature": 0.7, "max_tokens": MAX_TOKENS, "seed": 1},
    }
    table = pa.Table.from_pylist([{"prompt_id": f"p{i}"} | one for i in range(ECHO_ROWS)])
    costs: dict[str, float] = {}
    for size in (sampling.rows_per_request, 1024):
        echo = sampling.model_copy(update={"engine": "echo", "rows_per_request": size})
        rows = table.slice(0, min(ECHO_ROWS, 200 * size))
        seconds, answered = _run_plan(rows, "", echo)
        costs[f"us_per_row_at_{size}_rows_per_request"] = seconds / len(answered) * 1e6
    return costs


def _run_plan(
    rows: pa.Table, source: str, sampling: SamplingSettings
) -> tuple[float, list[dict[str, Any]]]:
    """Return the seconds from the first row in the engine to the last at the driver."""
    import ray.data

    from cgd_ray.runtime import ray_session
    from cgd_ray.sampling.attempts import AttemptRecord
    from cgd_ray.sampling.processor import sampler

    size = sampling.rows_per_request
    blocks = [rows.slice(i, size).combine_chunks() for i in range(0, len(rows), size)]
    columns = ["prompt_id", "num_generated_tokens", "__inference_error__"]
    with tempfile.TemporaryDirectory() as folder, ray_session(None):
        record = AttemptRecord(folder, "drafts", sampling.max_attempts)
        plan = sampler(source, sampling, STUDENT, record, on_gpu=False)(ray.data.from_arrow(blocks))
        started: list[float] = []
        watch = threading.Thread(target=_first_marker, args=(Path(folder), started), daemon=True)
        watch.start()
        answered: list[dict[str, Any]] = []
        for batch in plan.iter_batches(batch_format="pyarrow", batch_size=None):
            answered += batch.select(columns).to_pylist()
        end = time.perf_counter()
    assert len(answered) == len(rows)
    assert not any(row["__inference_error__"] for row in answered)
    return end - started[0], answered


def _first_marker(folder: Path, started: list[float]) -> None:
    while not (folder / "drafts" / "attempts").is_dir():
        time.sleep(0.01)
    started.append(time.perf_counter())


def _source() -> str:
    return student_source(EMBEDDED_STUDENT, Path(tempfile.gettempdir()) / "cgd_ray-benchmark")


def _figures(num_tokens: int, seconds: float) -> dict[str, Any]:
    return {
        "tokens_per_s": num_tokens / seconds,
        "output_tokens": num_tokens,
        "seconds": seconds,
        "load_average": os.getloadavg()[0],
    }


if __name__ == "__main__":
    main()
