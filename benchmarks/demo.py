"""The seconds and scores of the last `make demo` as a result file: run it after one."""

import json
from pathlib import Path

from benchmarks.results import write_result

SUMMARY = Path(".cgd/demo/demo/summary.json")
LIMIT_S = 15 * 60


def main() -> None:
    """Write the result file."""
    summary = json.loads(SUMMARY.read_text(encoding="utf-8"))
    total = sum(summary["seconds"].values())
    evaluation = summary["evaluation"]
    path = write_result(
        "demo",
        "make demo && .venv/bin/python -m benchmarks.demo",
        ours={"seconds": total, "seconds_by_stage": summary["seconds"], **evaluation["student"]},
        baseline={"limit_seconds": LIMIT_S, **evaluation["base"]},
        ratio=total / LIMIT_S,
        spread={"difference": evaluation["difference"]},
        passed=total <= LIMIT_S and evaluation["difference"]["low"] > 0,
    )
    print(path)


if __name__ == "__main__":
    main()
