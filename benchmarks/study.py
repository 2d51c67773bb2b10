"""A finished study as a committed result: `make study`, then `python -m benchmarks.study FOLDER`.

The figures of `study.json` go into the file whole, so that its page and tables can be made again.
"""

import json
import sys
from pathlib import Path

from pydantic import TypeAdapter

from benchmarks.results import write_result
from cgd_ray.study.arms import BASE
from cgd_ray.study.results import StudyResult, from_json
from cgd_ray.study.table import markdown, table


def main(folder: str) -> None:
    """Write the result file of the study whose `study.json` is in a folder."""
    result = from_json((Path(folder) / "study.json").read_bytes())
    first = result.of(result.matches[0])
    accuracy = {arm.arm: arm.tasks[0].accuracy for arm in first}
    rival = "distilled_sft" if "distilled_sft" in accuracy else BASE
    path = write_result(
        f"study-{result.study}",
        result.command,
        ours=_accuracies(result, [result.reference]),
        baseline=_accuracies(result, [arm.arm for arm in first if arm.arm != result.reference]),
        ratio=accuracy[result.reference].mean / accuracy[rival].mean,
        spread={"intervals": "95 % over prompts and trainings, in study.arms"},
        passed=result.num_finished == result.num_cells,
    )
    whole = TypeAdapter(StudyResult).dump_python(result, mode="json")
    kept = json.loads(path.read_text(encoding="utf-8")) | {"study": whole}
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(table(result))
    print(f"\nfor README.md:\n\n{markdown(result)}\n\n{path}")


def _accuracies(result: StudyResult, names: list[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Return accuracies by match, arm and task."""
    return {
        match: {
            arm.arm: {task.task: round(task.accuracy.mean, 4) for task in arm.tasks}
            for arm in result.of(match)
            if arm.arm in names
        }
        for match in result.matches
    }


if __name__ == "__main__":
    main(sys.argv[1])
