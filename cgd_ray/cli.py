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
from cgd_ray.settings import load
from cgd_ray.verbs import VERBS, Verb

_ASK = "ask"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit status: 0, 2 for a user's error, 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="cgd",
        description="Critique-Guided Distillation on Ray: draft, critique, refine, "
        "fine-tune, serve, evaluate.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in VERBS.items():
        add_arguments(verbs.add_parser(name, help=verb.help, description=verb.help), verb)
    verbs.add_parser(_ASK, help="ask every served model, and print the answers side by side")
    given = sys.argv[1:] if argv is None else list(argv)
    if given[:1] == [_ASK]:  # a client: it takes a question, and no run file
        return importlib.import_module("cgd_ray.serving.asking").main(given[1:])
    args = parser.parse_args(given)
    return run_verb(args.verb, args)


def job(verb: str, work: Callable[..., None], argv: Sequence[str] | None = None) -> int:
    """Run a script of `jobs/`: parse, print the arithmetic, do its work."""
    parser = argparse.ArgumentParser(description=VERBS[verb].help)
    add_arguments(parser, VERBS[verb])
    return run_verb(verb, parser.parse_args(argv), work)


def add_arguments(parser: argparse.ArgumentParser, verb: Verb) -> None:
    """Add what every verb takes, and its own options."""
    if verb.compares:
        for side in ("A", "B"):
            parser.add_argument(side, help="RUN.toml or a folder of scores, or several with commas")
        return
    parser.add_argument("run_file", metavar="RUN.toml", help="settings of the run")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.setting=value", help="change single settings"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print settings and arithmetic, and stop"
    )
    for option in verb.options:
        parser.add_argument(option.flag, **option.settings)


def run_verb(name: str, args: argparse.Namespace, work: Callable[..., None] | None = None) -> int:
    """Print the arithmetic, then do the work of a verb."""
    verb = VERBS[name]
    try:
        if verb.compares:
            _function(verb)(args.A, args.B)
            return 0
        settings = load(args.run_file, args.overrides)
        if args.dry_run:
            print(json.dumps(settings.model_dump(mode="json"), indent=2))
            print(describe(settings, derive(settings)))
            return 0
        if verb.announces:
            print(f"{settings.run.name}\n{describe(settings, derive(settings))}", file=sys.stderr)
        flags = [option.flag.removeprefix("--").replace("-", "_") for option in verb.options]
        log = Path(settings.run.work_dir) / "logs" / f"{name}.log"
        with noise_to_file(log):
            (work or _function(verb))(settings, **{flag: getattr(args, flag) for flag in flags})
        if name == "run":
            print(" ".join(["serve it    cgd serve", args.run_file, *args.overrides]))
    except UserError as error:
        print(f"cgd {name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _function(verb: Verb) -> Callable[..., None]:
    module, _, name = verb.function.partition(":")
    return getattr(importlib.import_module(module), name)


if __name__ == "__main__":
    sys.exit(main())
