"""The one exception that a user is meant to read, and what a command line makes of it."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can mend: one line that names the value, the limit and the setting.

    The command line prints it without a traceback and exits with status 2.
    """


def exit_status(command: str, work: Callable[[], int]) -> int:
    """Do the work of a command; return its exit status, 2 for a user's error, 130 for Ctrl-C.

    Args:
        command: as it was typed, such as `run`.
        work: resumable; returns its own exit status.
    """
    try:
        return work()
    except UserError as error:
        print(f"cgd {command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
