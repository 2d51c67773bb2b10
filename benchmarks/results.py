"""The one format of every figure that we claim, in `benchmarks/results/`."""

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cgd_ray.pipeline.report import package_versions

RESULTS = Path(__file__).parent / "results"


def hardware() -> tuple[str, str]:
    """Return a short name for file names, and a description, of this machine."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    cpu = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "CPU")
    flags = next((x for x in lines if x.startswith("flags")), "")
    amx = ", AMX bf16" if "amx_bf16" in flags else ""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    count = os.cpu_count() or 1
    gpus = _gpus()
    name = f"{len(gpus)}gpu" if gpus else f"{count}cpu"
    more = f"{len(gpus)} x {gpus[0]}" if gpus else "no GPU"
    return name, f"{count} x {cpu}{amx}, {memory:.0f} GiB, {platform.machine()}, {more}"


def _gpus() -> list[str]:
    """Return the models of the NVIDIA GPUs that the kernel's driver knows."""
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]


def write_result(
    name: str,
    command: str,
    ours: dict[str, Any],
    baseline: dict[str, Any],
    ratio: float,
    spread: dict[str, Any],
    *,
    passed: bool,
) -> Path:
    """Write one result file and return its path.

    Args:
        name: of the benchmark.
        command: that makes the figures again.
        ours: our figures, with units in the keys.
        baseline: what they are compared with, measured in the same run.
        ratio: ours over baseline.
        spread: intervals, or minimum and maximum over repeats.
        passed: whether the stated goal was met.
    """
    short, long = hardware()
    date = datetime.now(UTC).date().isoformat()
    path = RESULTS / f"{name}-{short}-{date}.json"
    result = {
        "name": name,
        "hardware": long,
        "date": date,
        "versions": dict(package_versions()),
        "command": command,
        "ours": ours,
        "baseline": baseline,
        "ratio": round(ratio, 3),
        "spread": spread,
        "passed": passed,
    }
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path
