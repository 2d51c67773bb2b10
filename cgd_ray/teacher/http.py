"""One HTTP client for every teacher: connections, bounds, and what each transport error means.

Retries are the caller's. Nothing is followed, no proxy is taken from the environment, and every
connection is checked at the moment it is made, so a name cannot change its address after the check.
"""

import errno
import socket
import time
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from cgd_ray.prompts.messages import Message
from cgd_ray.teacher.address import refused_address
from cgd_ray.teacher.completion import Completion, TeacherError
from cgd_ray.teacher.credentials import Credentials
from cgd_ray.teacher.wire.base import ChatOptions, HttpRequest, HttpResponse, Wire, line

_LONGEST_ANSWER_BYTES = 32 << 20
# Less than the 5 s after which uvicorn, the server of most self-hosted teachers, closes an idle
# connection: a call on one that it is just closing would fail.
_IDLE_CONNECTION_S = 4.0


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one client may do."""

    timeout_s: float  # of one call, from the connection to the last byte
    max_in_flight: int  # connections
    allow_private: bool  # private and loopback addresses may be called


class HttpTeacher:
    """Asks a teacher's API for chat completions, many at a time.

    Args:
        wire: format of the API.
        options: where and how it is asked.
        credentials: of its user.
        limits: of this client.
    """

    def __init__(
        self, wire: Wire, options: ChatOptions, credentials: Credentials, limits: HttpLimits
    ) -> None:
        self.wire = wire
        self.options = options
        self._credentials = credentials
        self._limits = limits
        self._session: aiohttp.ClientSession | None = None

    async def complete(self, messages: list[Message], max_tokens: int) -> Completion:
        """Return the answer to one chat.

        Raises:
            TeacherError: there is none; it says whether to try again.
        """
        request = self.wire.build_request(self.options, messages, max_tokens)
        return self.wire.parse_response(self.options, await self.send(request))

    async def probe(self) -> HttpResponse:
        """Return the response to a request that costs nothing.

        Raises:
            TeacherError: there is none.
        """
        return await self.send(self.wire.build_probe(self.options))

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def send(
        self, request: HttpRequest, longest_bytes: int = _LONGEST_ANSWER_BYTES
    ) -> HttpResponse:
        """Return the response to one request, whatever its status.

        Raises:
            TeacherError: there is none, or it is longer than allowed.
        """
        if self._session is None:  # a session belongs to the event loop that calls
            self._session = _session(self._limits)
        ready = await self._credentials.authorized(request)
        try:
            async with self._session.request(
                ready.method,
                URL(ready.url, encoded=True),
                data=ready.body or None,
                headers=ready.headers,
                allow_redirects=False,
            ) as response:
                body = await _body(response, longest_bytes)
        except TimeoutError as error:
            raise TeacherError("timeout", "no answer within teacher.timeout_s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _transport_error(error) from error
        for secret in self._credentials.secrets:  # a server may say the key back
            body = body.replace(secret.encode(), b"[key]")
        headers = {name.lower(): value for name, value in response.headers.items()}
        return HttpResponse(response.status, headers, body, time.time())


def _session(limits: HttpLimits) -> aiohttp.ClientSession:
    def checked_socket(address: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, place = address
        refuse = refused_address(str(place[0]), allow_private=limits.allow_private)
        if refuse:
            raise PermissionError(errno.EACCES, f"teacher.base_url points to {refuse}")
        return socket.socket(family, kind, protocol)

    connector = aiohttp.TCPConnector(
        limit=limits.max_in_flight,
        keepalive_timeout=_IDLE_CONNECTION_S,
        socket_factory=checked_socket,
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=limits.timeout_s, sock_connect=limits.timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )


async def _body(response: aiohttp.ClientResponse, longest_bytes: int) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > longest_bytes:
            limit = longest_bytes >> 20
            raise TeacherError("bad_answer", f"the answer is longer than {limit} MiB")
    return bytes(body)


def _transport_error(error: Exception) -> TeacherError:
    if isinstance(error, aiohttp.ClientConnectorError) and error.errno == errno.EACCES:
        return TeacherError("refused_address", line(error.strerror), stop=True)
    if isinstance(error, ValueError):  # an address that no call can reach
        return TeacherError("bad_address", line(error), stop=True)
    return TeacherError("connection", line(error) or type(error).__name__)
