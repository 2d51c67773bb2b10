"""The one format of every figure that we claim, in `benchmarks/results/`."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cgd_ray.hardware import hardware
from cgd_ray.pipeline.report import package_versions

RESULTS = Path(__file__).parent / "results"


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
