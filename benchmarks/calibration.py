"""`make calibration`: the demo's settings, plain cgd and distilled_sft in one training budget.

All arms share prompts, drafts, critiques and refinements, and take the demo's 65 optimiser steps of
at most 1,024 tokens. Arms that are finished are read, not run again.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.results import write_result

RUN = "jobs/runs/demo.toml"
SUMMARY = Path(".cgd/demo/demo/summary.json")
ARMS = {
    "cgd_half_prompt_only": [],
    "cgd": ["examples.prompt_only_share=0", "train.num_epochs=2", "train.max_steps=65"],
    "distilled_sft": [
        "examples.objective=distilled_sft",
        "examples.prompt_only_share=0",
        "train.num_epochs=4",
        "train.max_steps=65",
    ],
}


def run_arm(overrides: list[str]) -> dict[str, Any]:
    """Run one arm of the demo; return its evaluation."""
    subprocess.run([Path(sys.executable).with_name("cgd"), "run", RUN, *overrides], check=True)
    return json.loads(SUMMARY.read_text(encoding="utf-8"))["evaluation"]


def main() -> None:
    """Run every arm and write the result file."""
    arms = {name: run_arm(overrides) for name, overrides in ARMS.items()}
    demo, rival = arms["cgd_half_prompt_only"], arms["distilled_sft"]
    path = write_result(
        "calibration-65-steps",
        "make calibration",
        ours={
            name: {"accuracy": arms[name]["student"]["accuracy"], **arms[name]["difference"]}
            for name in ("cgd_half_prompt_only", "cgd")
        },
        baseline={
            "base": demo["base"],
            "distilled_sft": {"accuracy": rival["student"]["accuracy"], **rival["difference"]},
        },
        ratio=demo["student"]["accuracy"] / rival["student"]["accuracy"],
        spread={
            name: {"low": arm["student"]["low"], "high": arm["student"]["high"]}
            for name, arm in arms.items()
        },
        passed=demo["difference"]["low"] > 0,
    )
    print(path)


if __name__ == "__main__":
    main()
