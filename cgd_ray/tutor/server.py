"""The tutor's HTTP server: `POST /v1/chat/completions`, `GET /v1/models`, `GET /health`."""

import asyncio
import hmac
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from cgd_ray.tutor.conversation import answer_chat
from cgd_ray.tutor.feedback import Reveal
from cgd_ray.tutor.wire import ApiError, completion, parse_request

MAX_BODY_BYTES = 1_000_000

_log = logging.getLogger("cgd_ray.tutor")


@dataclass(frozen=True, slots=True)
class Tutor:
    """The tutor's endpoints and what they are set to.

    Args:
        reveal: how much a critique gives away.
        api_key: the bearer token that `/v1` asks for; None: none.
        latency_ms: a wait before each answer, for benchmarks.
    """

    reveal: Reveal = "none"
    api_key: str | None = None
    latency_ms: int = 0

    @property
    def model(self) -> str:
        """The name that answers carry, whichever model was asked for."""
        return f"tutor-reveal-{self.reveal}"

    async def chat(self, request: Request) -> JSONResponse:
        """Answer one chat with a critique, a refinement or a refusal."""
        self._authorise(request)
        chat = parse_request(await _read_body(request))
        reply = answer_chat(chat.messages, self.reveal)
        body = completion(chat, reply, self.model)
        _log.info("%s %s", reply.turn, body["usage"])
        await asyncio.sleep(self.latency_ms / 1000)
        return JSONResponse(body)

    async def models(self, request: Request) -> JSONResponse:
        """List the one model."""
        self._authorise(request)
        model = {"id": self.model, "object": "model", "created": 0, "owned_by": "cgd_ray"}
        return JSONResponse({"object": "list", "data": [model]})

    async def health(self, _request: Request) -> JSONResponse:
        """Say that the server is up."""
        return JSONResponse({"status": "ok"})

    def _authorise(self, request: Request) -> None:
        if self.api_key is None:
            return
        given = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {self.api_key}".encode()):
            raise ApiError(401, "missing or wrong bearer token", code="invalid_api_key")


def build_app(tutor: Tutor) -> Starlette:
    """Return the application; every error it gives has OpenAI's shape."""
    return Starlette(
        routes=[
            Route("/v1/chat/completions", tutor.chat, methods=["POST"]),
            Route("/v1/models", tutor.models),
            Route("/health", tutor.health),
        ],
        exception_handlers={ApiError: _api_error, HTTPException: _http_error},
    )


def serve(tutor: Tutor, host: str, port: int, port_file: Path | None) -> None:
    """Serve until a signal ends the process.

    Args:
        tutor: what to serve.
        host: the address to bind.
        port: the port to bind; 0: any free one.
        port_file: gets the port once connections are accepted.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=512)
    config = uvicorn.Config(
        build_app(tutor),
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=2,
    )
    _AnnouncingServer(config, listener, port_file).run(sockets=[listener])


class _AnnouncingServer(uvicorn.Server):
    """Tells the port when, and only when, connections are accepted."""

    def __init__(
        self, config: uvicorn.Config, listener: socket.socket, port_file: Path | None
    ) -> None:
        super().__init__(config)
        self._address = listener.getsockname()
        self._port_file = port_file

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = self._address[:2]
        if self._port_file is not None:
            _write_atomically(self._port_file, f"{port}\n")
        url_host = f"[{host}]" if ":" in host else host
        print(f"tutor: http://{url_host}:{port}/v1 (process {os.getpid()})", flush=True)


def _write_atomically(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                limit = f"the body is longer than {MAX_BODY_BYTES} bytes"
                raise ApiError(413, limit, code="too_large")
    except ClientDisconnect as error:
        raise ApiError(499, "the client went away") from error
    return bytes(body)


async def _api_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    _log.info("%d %s", error.status, error)
    return JSONResponse(error.body(), status_code=error.status)


async def _http_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    body: dict[str, Any] = ApiError(error.status_code, error.detail).body()
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)
