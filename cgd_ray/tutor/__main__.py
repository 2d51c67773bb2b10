"""Start the tutor: `python -m cgd_ray.tutor --port 0 --reveal none`."""

import argparse
import ctypes
import logging
import os
import signal
import sys
from pathlib import Path

from cgd_ray.tutor.server import Tutor, serve

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Parse the command line and serve."""
    parent = os.getppid()
    args = _parser().parse_args()
    if args.exit_with_parent is not None:
        _exit_with_parent(args.exit_with_parent or parent)
    logging.basicConfig(
        filename=args.log,
        level=logging.INFO if args.log else logging.WARNING,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    key = args.api_key_file.read_text().strip() if args.api_key_file else None
    if key == "":
        sys.exit(f"--api-key-file {args.api_key_file} is empty")
    serve(Tutor(args.reveal, key, args.latency_ms), args.host, args.port, args.port_file)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cgd_ray.tutor", description=__doc__)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to bind (default: %(default)s)")
    add("--port", type=int, default=0, help="port to bind; 0: any free one (the default)")
    add("--port-file", type=Path, help="file that gets the port once connections are accepted")
    add(
        "--reveal",
        choices=["none", "step", "answer"],
        default="none",
        help="what a critique gives away: nothing, the wrong step's result, also the answer",
    )
    add("--api-key-file", type=Path, help="file with the bearer token that clients must send")
    add("--latency-ms", type=int, default=0, help="wait before each answer, for benchmarks")
    add("--log", type=Path, help="log file, one line a request (default: warnings on stderr)")
    add(
        "--exit-with-parent",
        type=int,
        nargs="?",
        const=0,
        metavar="PID",
        help="end when the parent dies (Linux); its PID, if given, closes the start-up race",
    )
    return parser


def _exit_with_parent(parent: int) -> None:
    if not sys.platform.startswith("linux"):
        sys.exit("--exit-with-parent needs Linux (prctl)")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"prctl(PR_SET_PDEATHSIG) failed: {os.strerror(ctypes.get_errno())}")
    # The parent may have died before the line above: no signal comes then.
    if os.getppid() != parent:
        sys.exit("the parent process is gone")


if __name__ == "__main__":
    main()
