"""Ray's authentication token: found as Ray finds it, and readable by its owner alone."""

import contextlib
import os
import secrets
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cgd_ray.errors import UserError

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Token:
    """The token of a cluster; never printed."""

    value: str = field(repr=False)
    source: str  # the variable or file that it came from, for messages


def find_token(environment: Mapping[str, str], home: Path) -> Token | None:
    """Return the token that Ray's own clients would send; None if there is none.

    Raises:
        UserError: the file cannot be read, is empty, or others may read it.
    """
    if value := environment.get("RAY_AUTH_TOKEN", "").strip():
        return Token(value, "RAY_AUTH_TOKEN")
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else _default_path(home)
    try:
        mode = path.stat().st_mode
        if mode & _OTHERS:
            raise UserError(
                f"{path} has mode {stat.S_IMODE(mode):o}: others on this machine could take the "
                f"cluster over with it; chmod 600 {path}"
            )
        value = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        if named is None:
            return None
        raise UserError(f"RAY_AUTH_TOKEN_PATH={named} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the token in {path}: {error}") from error
    if not value:
        raise UserError(f"the token file {path} is empty")
    return Token(value, str(path))


def keep_token_private(environment: Mapping[str, str], home: Path) -> None:
    """See to it that a Ray that we start writes no token that others can read.

    Ray makes its default token file readable by everybody. So it is made here first, or its mode is
    mended; where the environment names another token, nothing is done.
    """
    mode = environment.get("RAY_AUTH_MODE", "token").lower()
    if mode != "token" or {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & environment.keys():
        return
    path = _default_path(home)
    with contextlib.suppress(OSError):  # a home that is not ours to write: Ray says what is wrong
        if path.exists():
            path.chmod(stat.S_IRUSR | stat.S_IWUSR)
            return
        path.parent.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
        # A link appears with its content, and only once: two drivers may start at the same time.
        with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="utf-8") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.link(file.name, path)


def _default_path(home: Path) -> Path:
    return home / ".ray" / "auth_token"
