"""`cgd <verb> RUN.toml [section.setting=value ...]`.

Parsing and `--dry-run` load nothing heavy; a verb's module is imported when it runs.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cgd_ray.errors import UserError
from cgd_ray.noise import noise_to_file
from cgd_ray.plan import derive, describe
from cgd_ray.settings import Settings, load

VERBS = {
    "run": ("cgd_ray.pipeline.run:run", "everything, from prompts to report"),
    "prompts": ("cgd_ray.pipeline.run:prompts", "load the problems"),
    "generate": ("cgd_ray.pipeline.run:generate", "drafts, critiques and refinements"),
    "examples": ("cgd_ray.pipeline.run:examples", "verify, tokenize and pack"),
    "train": ("cgd_ray.pipeline.run:train", "fine-tune the student"),
    "serve": ("cgd_ray.pipeline.serve:serve", "serve base and student over the OpenAI API"),
    "evaluate": ("cgd_ray.pipeline.run:evaluate", "ask both models, grade, compare"),
    "report": ("cgd_ray.pipeline.run:report", "write the page and summary.json"),
    "doctor": ("cgd_ray.doctor:doctor", "say what is installed, reachable and missing"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit status: 0, 2 for a user's error, 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="cgd",
        description="Critique-Guided Distillation on Ray: draft, critique, refine, "
        "fine-tune, serve, evaluate.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, (_, help_text) in VERBS.items():
        add_arguments(verbs.add_parser(verb, help=help_text, description=help_text))
    args = parser.parse_args(argv)
    return run_verb(args.verb, args)


def job(verb: str, work: Callable[[Settings], None], argv: Sequence[str] | None = None) -> int:
    """Run a script of `jobs/`: parse, print the arithmetic, do its work."""
    parser = argparse.ArgumentParser(description=VERBS[verb][1])
    add_arguments(parser)
    return run_verb(verb, parser.parse_args(argv), work)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every verb takes."""
    parser.add_argument("run_file", metavar="RUN.toml", help="settings of the run")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.setting=value", help="change single settings"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print settings and arithmetic, and stop"
    )


def run_verb(
    verb: str, args: argparse.Namespace, work: Callable[[Settings], None] | None = None
) -> int:
    """Print the arithmetic, then do the work of a verb."""
    try:
        settings = load(args.run_file, args.overrides)
        if args.dry_run:
            print(json.dumps(settings.model_dump(mode="json"), indent=2))
            print(describe(settings, derive(settings)))
            return 0
        if verb not in ("doctor", "serve", "report"):
            print(f"{settings.run.name}\n{describe(settings, derive(settings))}", file=sys.stderr)
        log = Path(settings.run.work_dir) / "logs" / f"{verb}.log"
        with noise_to_file(log):
            (work or _function(verb))(settings)
        if verb == "run":
            print(" ".join(["serve it    cgd serve", args.run_file, *args.overrides]))
    except UserError as error:
        print(f"cgd {verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _function(verb: str) -> Callable[[Settings], None]:
    module, _, name = VERBS[verb][0].partition(":")
    return getattr(importlib.import_module(module), name)


if __name__ == "__main__":
    sys.exit(main())
