"""`cgd study STUDY.toml [section.setting=value ...]`."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from cgd_ray.errors import exit_status
from cgd_ray.noise import noise_to_file
from cgd_ray.plan import derive, describe
from cgd_ray.processes import sigterm_as_ctrl_c
from cgd_ray.settings import load
from cgd_ray.study.arms import READY_MADE, chosen_arms
from cgd_ray.study.settings import StudySettings, load_study


def main(argv: Sequence[str] | None = None) -> int:
    """Run a study; return the exit status: 0, 2 for a user's error, 130 for Ctrl-C."""
    arms = "\n".join(f"  {arm.name:<22}{arm.what}" for arm in READY_MADE.values())
    parser = argparse.ArgumentParser(
        prog="cgd study",
        description="Train several arms with several seeds on one shared set of chains, at "
        "matched budgets, and compare them. The same command goes on where it was.",
        epilog=f"arms that a study can name:\n{arms}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study_file", metavar="STUDY.toml", help="settings of the study")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.setting=value", help="of the study's run"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the cells, and stop")
    parser.add_argument(
        "--report", action="store_true", help="the page of what is finished; run nothing"
    )
    args = parser.parse_args(argv)
    return exit_status("study", lambda: _study(args))


def _study(args: argparse.Namespace) -> int:
    typed = shlex.join(["cgd", "study", args.study_file, *args.overrides])
    settings, run_file = load_study(Path(args.study_file))
    chosen_arms(settings.arms, settings.own_arms, settings.reference)
    run = load(run_file, [*settings.overrides, *args.overrides])
    print(f"{settings.name}\n{describe(run, derive(run))}", file=sys.stderr)
    print(_cells_in_words(settings), file=sys.stderr)
    if args.dry_run:
        return 0
    log = Path(run.run.work_dir) / "logs" / "study.log"
    with sigterm_as_ctrl_c(), noise_to_file(log):
        # Loads the cluster's libraries: not for --dry-run or a misspelt setting.
        from cgd_ray.pipeline import study

        work = study.report if args.report else study.study
        work(settings, str(run_file), args.overrides, typed)
    return 0


def _cells_in_words(settings: StudySettings) -> str:
    trained = [arm for arm in settings.arms if arm != "base"]
    number = len(trained) * len(settings.seeds) * len(settings.match)
    return (
        f"  {'arms':<12}{', '.join(settings.arms)}\n"
        f"  {'cells':<12}{number} trainings at most: {len(trained)} arms x "
        f"{len(settings.seeds)} seeds x matched {', '.join(settings.match)}"
    )


if __name__ == "__main__":
    sys.exit(main())
