"""How often students of the leg_counting study give an animal a wrong number of legs.

After `make study STUDY=jobs/studies/leg_counting.toml`, from the folder where it ran:
`python -m benchmarks.leg_facts .cgd/studies/leg-counting`. An answer is counted if any line of it
gives a wrong number of legs, whatever the line makes of it.
"""

import re
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.results import write_result
from cgd_ray.evaluation.paired import compare_seeds
from cgd_ray.pipeline.compare import evaluated
from cgd_ray.study.contrasts import Runs, estimate
from cgd_ray.study.results import ArmResult, from_json
from cgd_ray.tutor.legs import LEGS

# "3 cows, 4 legs each: ..." as the tutor says it, and "3 cows have 4 legs each" as students do.
_STATED = re.compile(r"\d+ ([a-z ]+?)(?:,| have) (\d+) legs?\b", re.IGNORECASE)


def wrong_legs(response: str) -> bool:
    """Return whether an answer gives an animal that the tutor knows a wrong number of legs."""
    return any(
        LEGS.get(name.casefold().removesuffix("s"), int(legs)) != int(legs)
        for name, legs in _STATED.findall(response)
    )


def main(folder: str) -> None:
    """Print each arm's share of such answers, and write the result file."""
    result = from_json((Path(folder) / "study.json").read_bytes())
    ours, others, less = {}, {}, {}
    for match in result.matches:
        runs = {arm.arm: _wrong(arm) for arm in result.of(match) if arm.costs}
        shares = {name: asdict(estimate(found)) for name, found in runs.items()}
        ours[match] = {result.reference: shares.pop(result.reference)}
        others[match] = shares
        own = runs.pop(result.reference)
        less[match] = {name: asdict(compare_seeds(found, own)) for name, found in runs.items()}
        for name, share in (ours[match] | shares).items():
            low, high = share["low"], share["high"]
            print(f"{match:14}{name:22}{share['mean']:7.1%}  {low:.1%} to {high:.1%}")
    first = result.matches[0]
    wrong = ours[first][result.reference]["mean"], others[first]["cgd_no_critique"]["mean"]
    path = write_result(
        "leg-facts",
        "python -m benchmarks.leg_facts .cgd/studies/leg-counting",
        ours={"share_of_answers_with_wrong_legs": ours},
        baseline={"share_of_answers_with_wrong_legs": others},
        ratio=(1 - wrong[0]) / (1 - wrong[1]),
        spread={"intervals": "95 % over problems and trainings", "reference_less_each": less},
        passed=result.num_finished == result.num_cells,
    )
    print(path)


def _wrong(arm: ArmResult) -> Runs:
    over = arm.tasks[0].over_base
    if over is None:
        raise ValueError(f"{arm.arm}: the study has no base, whose comparison names the folders")
    return [
        {s.prompt_id: [wrong_legs(s.response)] for s in evaluated(name).scores[arm.tasks[0].task]}
        for name in over.command.split()[-1].split(",")
    ]


if __name__ == "__main__":
    main(sys.argv[1])
