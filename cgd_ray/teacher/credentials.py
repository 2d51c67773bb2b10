"""Keys of teacher APIs: where they come from, and how they are put on a request.

A key is read on the machine that calls and shows in no representation, so in no log.
"""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from cgd_ray.errors import UserError
from cgd_ray.teacher.wire.base import HttpRequest


class Credentials(Protocol):
    """Puts what proves our identity on requests."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """What is sent and must never be shown again."""
        ...

    async def authorized(self, request: HttpRequest) -> HttpRequest:
        """Return the request as its provider accepts it."""
        ...


@dataclass(frozen=True, slots=True)
class HeaderKey:
    """A key that goes into a header as it is.

    Args:
        key: the key; None for servers that want none.
        header: its name.
        prefix: before the key.
    """

    key: str | None = field(repr=False)
    header: str = "Authorization"
    prefix: str = "Bearer "

    @property
    def secrets(self) -> tuple[str, ...]:
        """The key."""
        return (self.key,) if self.key else ()

    async def authorized(self, request: HttpRequest) -> HttpRequest:
        """Return the request with the key in its header."""
        # Keyless servers of this format still want to see the header filled in.
        value = f"{self.prefix}{self.key or 'none'}"
        return replace(request, headers={**request.headers, self.header: value})


def read_api_key(variable: str, file: str | None) -> str | None:
    """Return the key from its file or variable; None if neither holds one.

    Raises:
        UserError: the file cannot be read, or the key cannot be sent.
    """
    where = f"${variable}" if file is None else f"teacher.api_key_file={file}"
    try:
        key = os.environ.get(variable) if file is None else _read(file)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not text"
        raise UserError(f"{where}: {why}") from error
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise UserError(f"{where} holds no key: a key is one word of ASCII characters")
    return key or None


def _read(file: str) -> str:
    return Path(file).expanduser().read_text(encoding="utf-8").strip()
