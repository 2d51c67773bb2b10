"""`cgd cluster render RUN.toml --out DIR [a.b=c ...]`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cgd_ray.cluster.render import Source, render
from cgd_ray.errors import UserError
from cgd_ray.settings import load
from cgd_ray.submission.refuse import refuse_secrets


def main(argv: Sequence[str]) -> int:
    """Run `cgd cluster`; return the exit status: 0, or 2 for a user's error."""
    parser = argparse.ArgumentParser(
        prog="cgd cluster", description="Write the cluster files of a run."
    )
    parser.add_argument(
        "action",
        choices=["render"],
        help="render: files for AWS, own machines, KubeRay and Slurm; every number is the run's",
    )
    parser.add_argument("run_file", metavar="RUN.toml", help="settings of the run")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.setting=value", help="change single settings"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write to")
    args = parser.parse_intermixed_args(argv)
    try:
        for path in write(args.run_file, args.overrides, args.out):
            print(path)
    except UserError as error:
        print(f"cgd cluster: {error}", file=sys.stderr)
        return 2
    return 0


def write(run_file: str, overrides: Sequence[str], out: str) -> list[Path]:
    """Write the files of a run; return their paths.

    Raises:
        UserError: the run cannot be on a cluster, a secret would be written, or the folder cannot
            be written to.
    """
    settings = load(run_file, overrides)
    text = Path(run_file).read_text(encoding="utf-8")
    named = {f"override {override.partition('=')[0]}": override for override in overrides}
    refuse_secrets({run_file: text, **named}, os.environ)
    files = render(settings, Source(run_file, text, tuple(overrides), out))
    paths: list[Path] = []
    for name, content in sorted(files.items()):
        path = Path(out) / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        except OSError as error:
            raise UserError(f"--out {out}: cannot write {path}: {error.strerror}") from error
        paths.append(path)
    return paths
