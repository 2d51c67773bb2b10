"""`cgd <verb> RUN.toml [section.setting=value ...]`.

Parsing and `--dry-run` load nothing heavy; a verb's module is imported when it runs.
"""

import argparse
import importlib
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cgd_ray.errors import UserError, exit_status
from cgd_ray.noise import noise_to_file
from cgd_ray.plan import derive, describe
from cgd_ray.processes import sigterm_as_ctrl_c
from cgd_ray.settings import Settings, load
from cgd_ray.verbs import VERBS, Verb

# What takes no run file, or takes more than one run.
_CLIENTS = {
    "ask": ("cgd_ray.serving.asking", "ask every served model, and print the answers side by side"),
    "cluster": ("cgd_ray.cluster.commands", "write the cluster files of a run: cluster render"),
    "jobs": ("cgd_ray.submission.commands", "list, follow, stop and resume a cluster's jobs"),
    "study": (
        "cgd_ray.study.command",
        "compare arms and seeds at matched budgets: study STUDY.toml",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit status: 0, 2 for a user's error, 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="cgd",
        description="Critique-Guided Distillation on Ray: draft, critique, refine, "
        "fine-tune, serve, evaluate.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in VERBS.items():
        known = verbs.add_parser(name, help=verb.help, description=verb.help)
        add_arguments(known, verb)
        if verb.job:
            _add_submission(known)
    for name, (_, what) in _CLIENTS.items():
        verbs.add_parser(name, help=what)
    given = sys.argv[1:] if argv is None else list(argv)
    if given[:1] and given[0] in _CLIENTS:
        return importlib.import_module(_CLIENTS[given[0]][0]).main(given[1:])
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
    """Print the arithmetic, then do the work of a verb; return the exit status."""
    return exit_status(name, lambda: _run(name, VERBS[name], args, work))


def _run(name: str, verb: Verb, args: argparse.Namespace, work: Callable[..., None] | None) -> int:
    if verb.compares:
        _function(verb)(args.A, args.B)
        return 0
    settings = load(args.run_file, args.overrides)
    if args.dry_run:
        print(json.dumps(settings.model_dump(mode="json"), indent=2))
        print(describe(settings, derive(settings)))
        return 0
    if getattr(args, "address", None) is not None:
        return _submit(name, args, settings)
    if verb.announces:
        print(f"{settings.run.name}\n{describe(settings, derive(settings))}", file=sys.stderr)
    flags = [option.flag.removeprefix("--").replace("-", "_") for option in verb.options]
    given = {flag: getattr(args, flag) for flag in flags}
    if verb.names_commands:
        given["command"] = [args.run_file, *args.overrides]
    log = Path(settings.run.work_dir) / "logs" / f"{name}.log"
    with sigterm_as_ctrl_c(), noise_to_file(log):
        (work or _function(verb))(settings, **given)
    if name == "run":
        print(f"serve it    {shlex.join(['cgd', 'serve', args.run_file, *args.overrides])}")
    return 0


def _add_submission(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--address", help="submit it to the cluster with this head, such as https://head:8265"
    )
    parser.add_argument(
        "--no-wait", action="store_true", help="with --address: do not follow the job's log"
    )


def _submit(name: str, args: argparse.Namespace, settings: Settings) -> int:
    verb = VERBS[name]
    if verb.not_submitted:
        raise UserError(verb.not_submitted)
    commands = importlib.import_module("cgd_ray.submission.commands")
    given = [o.flag for o in verb.options if getattr(args, o.flag[2:].replace("-", "_"))]
    request = commands.Request(name, args.run_file, tuple(args.overrides), tuple(given))
    return commands.submit(request, settings, args.address, wait=not args.no_wait)


def _function(verb: Verb) -> Callable[..., None]:
    module, _, name = verb.function.partition(":")
    return getattr(importlib.import_module(module), name)


if __name__ == "__main__":
    sys.exit(main())
