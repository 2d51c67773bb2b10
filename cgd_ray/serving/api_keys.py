"""API keys of the served address: read, rotated, compared.

Only hashes are kept, so no key is in a log, an error or a memory dump of the server.
"""

import hashlib
import hmac
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cgd_ray.errors import UserError

_MIN_LENGTH = 16  # characters; 16 random ones of base64 are 96 bits
_CHECK_EVERY_S = 1.0  # how long a removed key may go on working


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Hashes of the keys that are accepted; none: every caller is."""

    digests: tuple[bytes, ...]

    def accepts(self, authorization: str | None) -> bool:
        """Return whether an `Authorization` header carries one of the keys.

        Every key is compared, each in constant time: how long it takes says nothing.
        """
        scheme, _, key = (authorization or "").partition(" ")
        given = _digest(key.strip()) if scheme.lower() == "bearer" else bytes(32)
        matches = [hmac.compare_digest(given, digest) for digest in self.digests]
        return any(matches)


def read_keys(file: str | None, variable: str) -> list[str]:
    """Return the keys of a file (one a line, `#` comments) or else of a variable (commas between).

    Raises:
        UserError: the file cannot be read, is readable by others or holds no key, or a key is too
            short or cannot be sent.
    """
    if file is None:
        where, words = f"${variable}", os.environ.get(variable, "").split(",")
    else:
        where = f"serve.api_keys_file={file}"
        words = _private_text(Path(file).expanduser(), where).splitlines()
    keys = [word.strip() for word in words if word.strip() and not word.strip().startswith("#")]
    if file is not None and not keys:
        raise UserError(f"{where} holds no key: write one a line")
    for number, key in enumerate(keys, 1):
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise UserError(f"{where}: key {number} is not one word of ASCII characters")
        if len(key) < _MIN_LENGTH:
            raise UserError(
                f"{where}: key {number} has {len(key)} characters, fewer than {_MIN_LENGTH}: "
                "make one with `openssl rand -base64 24`"
            )
    return keys


def key_ring(keys: list[str]) -> KeyRing:
    """Return the ring of these keys."""
    return KeyRing(tuple(_digest(key) for key in keys))


@dataclass(slots=True)
class KeySource:
    """The keys as they are now: a file that changes is read again, without a restart.

    Args:
        file: `serve.api_keys_file`.
        variable: `serve.api_keys_env`; read once, because a process's environment does not change.
        clock: seconds, monotonic.
        ring: what was read last.
    """

    file: str | None
    variable: str
    clock: Callable[[], float] = time.monotonic
    ring: KeyRing | None = None
    _stamp: tuple[int, int, int] | None = field(default=None, init=False)
    _checked_s: float = field(default=0.0, init=False)

    def current(self) -> KeyRing:
        """Return the ring; a file that cannot be used any more leaves the last good one.

        Raises:
            UserError: the first reading failed.
        """
        now = self.clock()
        if self.ring is None:
            self._stamp, self._checked_s = self._file_stamp(), now
            self.ring = key_ring(read_keys(self.file, self.variable))
        elif self.file is not None and now - self._checked_s >= _CHECK_EVERY_S:
            self._checked_s = now
            self.ring = self._read_again(self.ring)
        return self.ring

    def _read_again(self, last: KeyRing) -> KeyRing:
        stamp = self._file_stamp()
        if stamp == self._stamp:
            return last
        try:
            ring = key_ring(read_keys(self.file, self.variable))
        except UserError:  # half written, or gone: looked at again a second later
            return last
        self._stamp = stamp
        return ring

    def _file_stamp(self) -> tuple[int, int, int] | None:
        """Return what changes when the file does: a replaced file has another inode."""
        if self.file is None:
            return None
        try:
            found = Path(self.file).expanduser().stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _private_text(path: Path, where: str) -> str:
    try:
        found = path.stat()
        mode = found.st_mode & 0o777
        # Kubernetes shows a secret as root's file that the pod's own group may read.
        others = 0o077 if found.st_uid == os.geteuid() else 0o037
        if mode & others:
            raise UserError(f"{where} has mode {mode:o}, readable by others: `chmod 600 {path}`")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not text"
        raise UserError(f"{where}: {why}") from error
