"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Something the user can mend: one line that names the value, the limit and the setting.

    The command line prints it without a traceback and exits with status 2.
    """
