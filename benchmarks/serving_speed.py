"""One replica of ours against bare `vllm serve`: requests a second and time to the first token.

The same engine arguments, the same load by vLLM's own client (`vllm bench serve`, chats, streams):
closed loops of 1, 8 and 32 clients, after a load that is not counted. Each server is alone on the
machine while it is asked, they take turns, and the client shares the machine with them. Where the
time goes is told by the processor time of each process. `--switches` also measures Ray Serve's
environment switches for throughput.

Linux's scheduling by sessions (`kernel.sched_autogroup_enabled`) lets the client wait for seconds
while an engine keeps all cores busy: switch it off before, as the result says whether it was.

    python -m benchmarks.serving_speed [--switches]
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil

from benchmarks.results import write_result
from cgd_ray.processes import free_port
from cgd_ray.sampling.engine import engine_environment, engine_kwargs
from cgd_ray.settings import EMBEDDED_STUDENT, load
from cgd_ray.student import student_source

_RUN = "jobs/runs/demo.toml"
_REPEATS = 3
_LOADS = {1: 16, 8: 64, 32: 160}  # clients, and how many requests they make together
_WARM_UP = (8, 16)
_TOKENS_IN, _TOKENS_OUT = 64, 32
_START_S, _LOAD_S = 300, 600
_GOALS = {"requests": 0.97, "ttft_ms": 10.0, "ttft_share": 0.05}
_AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")
_BIN = Path(sys.executable).parent
_VLLM = [sys.executable, "-m", "benchmarks.vllm_cli"]
_SWITCHES: dict[str, dict[str, str]] = {
    "ours_as_ray_sets_it": {
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "1",
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "1",
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.1",
    },
    "ours_haproxy": {"RAY_SERVE_ENABLE_HA_PROXY": "1"},
}


def main() -> None:
    """Measure in turns, print, write the result file."""
    parser = argparse.ArgumentParser(description="One replica of ours against bare vllm serve.")
    parser.add_argument("--switches", action="store_true", help="also Ray Serve's own switches")
    parser.add_argument("--repeats", type=int, default=_REPEATS)
    args = parser.parse_args()
    model = student_source(EMBEDDED_STUDENT, Path(".cgd/bench"))
    servers = {"vllm": _vllm(model), "ours": our_server(model, {})}
    if args.switches:
        servers |= {name: our_server(model, more) for name, more in _SWITCHES.items()}
    runs: dict[str, dict[int, list[dict[str, float]]]] = {
        name: {clients: [] for clients in _LOADS} for name in servers
    }
    spent: dict[str, dict[int, dict[str, float]]] = {name: {} for name in servers}
    for _ in range(args.repeats):
        for name, (command, environment) in servers.items():
            port = free_port()
            with running([word.format(port=port) for word in command], environment, port):
                ask_with_vllm(model, port, *_WARM_UP)
                for clients, num_requests in _LOADS.items():
                    before = processor_seconds()
                    found = ask_with_vllm(model, port, clients, num_requests)
                    spent[name][clients] = _spent(before, processor_seconds())
                    runs[name][clients].append(found)
                    print(name, clients, found, flush=True)
    ratios = {name: _ratios(runs[name], runs["vllm"]) for name in servers if name != "vllm"}
    worst = min(ratio["requests"] for ratio in ratios["ours"].values())
    path = write_result(
        "serving-speed",
        f"python -m benchmarks.serving_speed{' --switches' if args.switches else ''}",
        {
            **_medians(runs["ours"]),
            "beside_vllm": ratios,
            "sched_autogroup_enabled": _AUTOGROUP.read_text().strip() == "1",
            "processor_seconds_in_the_last_repeat": spent,
        },
        _medians(runs["vllm"]),
        worst,
        {name: _extremes(found) for name, found in runs.items()},
        passed=all(ratio["kept"] for ratio in ratios["ours"].values()),
    )
    print(json.dumps(ratios, indent=1), path)


def _vllm(model: str) -> tuple[list[str], dict[str, str]]:
    """Return the command of vLLM's own server with our engine's arguments, and its environment."""
    settings = load(_RUN)
    arguments = engine_kwargs(settings.sampling, settings.student, on_gpu=False)
    flags = [word for item in arguments.items() for word in _flag(*item)]
    command = [*_VLLM, "serve", model, "--served-model-name", "student"]
    where = ["--host", "127.0.0.1", "--port", "{port}"]
    environment = engine_environment(settings.serve.kv_cache_gib, on_gpu=False)
    return [*command, *where, *flags, "--load-format", "safetensors"], environment


def _flag(name: str, value: object) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", str(value)]


def our_server(
    model: str, switches: dict[str, str], more: Sequence[str] = ()
) -> tuple[list[str], dict[str, str]]:
    """Return the command of our server, `{port}` to be filled in, and its environment."""
    models = f'serve.models={{{{student="{Path(model).absolute()}"}}}}'
    command = [str(_BIN / "cgd"), "serve", _RUN, models, "serve.port={port}"]
    return [*command, "run.work_dir=.cgd/bench", *more], switches


@contextmanager
def running(
    command: list[str], environment: dict[str, str], port: int, key: str = ""
) -> Iterator[None]:
    """Run a server for the length of the block, from when it lists its models."""
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + _START_S
            while not _answers(port, key):
                if server.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"{command}: {log.read()[-3000:].decode(errors='replace')}")
                time.sleep(0.5)
            yield
        finally:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)


def _answers(port: int, key: str) -> bool:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        response = httpx.get(f"http://127.0.0.1:{port}/v1/models", headers=headers, timeout=2)
    except httpx.HTTPError:
        return False
    return response.status_code == 200 and bool(response.json()["data"])


def ask_with_vllm(
    model: str, port: int, clients: int, num_requests: int, key: str = ""
) -> dict[str, float]:
    """Let vLLM's client ask; return what it measured."""
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "backend": "openai-chat",
            "base-url": f"http://127.0.0.1:{port}",
            "endpoint": "/v1/chat/completions",
            "model": "student",
            "tokenizer": model,
            "dataset-name": "random",
            "random-input-len": _TOKENS_IN,
            "random-output-len": _TOKENS_OUT,
            "num-prompts": num_requests,
            "num-warmups": clients,
            "max-concurrency": clients,
            "seed": clients,
            "result-dir": folder,
            "result-filename": "found.json",
        }
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        command = [*_VLLM, "bench", "serve", *words]
        done = subprocess.run(
            [*command, "--ignore-eos", "--save-result", "--disable-tqdm"],
            capture_output=True,
            text=True,
            timeout=_LOAD_S,
            check=False,
            env={**os.environ, "OPENAI_API_KEY": key},
        )
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stderr[-3000:]}")
        found = json.loads((Path(folder) / "found.json").read_text(encoding="utf-8"))
    if found["completed"] != num_requests:
        raise RuntimeError(f"{found['completed']} of {num_requests} requests were answered")
    return {
        "requests_per_s": round(found["request_throughput"], 3),
        "tokens_per_s": round(found["output_throughput"], 1),
        "ttft_mean_ms": round(found["mean_ttft_ms"], 1),
        "ttft_p99_ms": round(found["p99_ttft_ms"], 1),
        "tpot_mean_ms": round(found["mean_tpot_ms"], 2),
    }


def processor_seconds() -> dict[tuple[int, str], float]:
    """Return the processor time of every process so far, in seconds, by its id and its name."""
    found: dict[tuple[int, str], float] = {}
    for process in psutil.process_iter(["pid", "cmdline", "cpu_times"]):
        words, times = process.info["cmdline"], process.info["cpu_times"]
        if words and times:
            found[process.info["pid"], _role(words)] = times.user + times.system
    return found


def _role(words: list[str]) -> str:
    """Return what a process is, from its command line."""
    line = " ".join(words)
    for name in ("VLLM::", "ray::"):  # they name themselves
        if line.startswith(name):
            return line.split()[0]
    for name in ("bench serve", "benchmarks.vllm_cli serve", "haproxy", "gcs_server", "raylet"):
        if name in line:
            return {"benchmarks.vllm_cli serve": "vllm serve"}.get(name, name)
    return "other"


def _spent(
    before: dict[tuple[int, str], float], after: dict[tuple[int, str], float]
) -> dict[str, float]:
    """Return what each kind of process spent meanwhile, from a tenth of a second up."""
    spent: dict[str, float] = {}
    for key, seconds in after.items():
        spent[key[1]] = spent.get(key[1], 0.0) + seconds - before.get(key, 0.0)
    most_first = sorted(spent.items(), key=lambda item: -item[1])
    return {name: round(seconds, 1) for name, seconds in most_first if seconds >= 0.1}


def _ratios(
    ours: dict[int, list[dict[str, float]]], theirs: dict[int, list[dict[str, float]]]
) -> dict[str, dict[str, Any]]:
    """Return by number of clients how ours compares, and whether that keeps the goals."""
    found: dict[str, dict[str, Any]] = {}
    for clients in ours:
        requests, ttft = (
            (_median(ours[clients], key), _median(theirs[clients], key))
            for key in ("requests_per_s", "ttft_mean_ms")
        )
        ratio, added = requests[0] / requests[1], ttft[0] - ttft[1]
        allowed = max(_GOALS["ttft_ms"], _GOALS["ttft_share"] * ttft[1])
        found[f"{clients}_clients"] = {
            "requests": round(ratio, 3),
            "ttft_added_ms": round(added, 1),
            "ttft_allowed_ms": round(allowed, 1),
            "kept": ratio >= _GOALS["requests"] and added <= allowed,
        }
    return found


def _median(runs: list[dict[str, float]], key: str) -> float:
    return median(run[key] for run in runs)


def _medians(runs: dict[int, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {
        f"{clients}_clients": {key: _median(found, key) for key in found[0]}
        for clients, found in runs.items()
    }


def _extremes(runs: dict[int, list[dict[str, float]]]) -> dict[str, dict[str, list[float]]]:
    return {
        f"{clients}_clients": {
            key: [min(run[key] for run in found), max(run[key] for run in found)]
            for key in found[0]
        }
        for clients, found in runs.items()
    }


if __name__ == "__main__":
    main()
