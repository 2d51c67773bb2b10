"""Batch APIs of OpenAI and Anthropic as one scripted HTTP server, strict about what it is sent.

A batch runs when the test says so (`finish`), or at the first look at it (`auto`). Results come in
the reverse order. What was answered, and so billed, is counted by key.
"""

import asyncio
import json
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.support.scripted_teacher import KEY
from tests.support.threads import in_thread

Answer = tuple[str, str]  # kind ("ok", "bad_request", "overloaded", "expired"), text
_CHAT_STATUS = {"bad_request": 400, "overloaded": 503}
_ERROR_TYPE = {"bad_request": "invalid_request_error", "overloaded": "overloaded_error"}


@dataclass
class Batch:
    """One batch at the server."""

    id: str
    requests: dict[str, Any]  # body by custom_id
    tag: str | None
    created_at_s: float
    status: str = "running"  # or "ended", "expired", "failed"
    results: list[bytes] = field(default_factory=list)
    errors: list[bytes] = field(default_factory=list)


class BatchServer:
    """The server's address, its batches, and what goes wrong next."""

    def __init__(self, answer: Callable[[dict[str, Any]], Answer], *, auto: bool) -> None:
        self._answer = answer
        self._auto = auto
        self._files: dict[str, bytes] = {}
        self.batches: dict[str, Batch] = {}
        self.billed: Counter[str] = Counter()
        self.calls: list[str] = []
        self.faults: dict[str, deque[str]] = {}  # "POST /batches" -> "429", "lost", "cut"
        self.status = "ended"  # of batches that finish from now on
        self.port = 0

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def finish(self) -> None:
        """Run every batch that is under way."""
        for batch in self.batches.values():
            if batch.status == "running":
                self._run(batch)

    def _run(self, batch: Batch) -> None:
        batch.status = self.status
        if batch.status == "failed":
            return
        for key, body in reversed(list(batch.requests.items())):
            kind, text = self._answer(body)
            kind = "expired" if batch.status == "expired" else kind
            self.billed[key] += kind == "ok"
            line = _openai_line if batch.tag is not None else _anthropic_line
            data = json.dumps(line(key, kind, text)).encode()
            (batch.results if kind in ("ok", *_CHAT_STATUS) else batch.errors).append(data)

    @web.middleware
    async def _check(self, request: web.Request, handler: Any) -> web.StreamResponse:
        key = request.headers.get("x-api-key") or request.headers.get("Authorization", "")[7:]
        assert key == KEY
        assert "messages" not in request.path or request.headers["anthropic-version"]
        call = f"{request.method} {re.sub(r'(file|batch|msgbatch)_[0-9]+', '*', request.path)}"
        self.calls.append(call)
        faults = self.faults.get(call)
        fault = faults.popleft() if faults else None
        if fault == "429":
            return web.json_response({}, status=429, headers={"Retry-After": "0.05"})
        if fault == "cut":  # nothing was done, and nobody says so
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        response = await handler(request)
        if fault == "lost":  # done, but the answer does not arrive
            assert request.transport is not None
            request.transport.close()
        return response

    def _new(self, requests: dict[str, Any], tag: str | None) -> Batch:
        assert requests
        prefix = "msgbatch" if tag is None else "batch"
        batch = Batch(f"{prefix}_{len(self.batches) + 1:03d}", requests, tag, time.time())
        self.batches[batch.id] = batch
        return batch

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert form["purpose"] == "batch"
        sent = form["file"]
        assert isinstance(sent, web.FileField)
        assert sent.filename.endswith(".jsonl")
        name = f"file_{len(self._files) + 1}"
        self._files[name] = sent.file.read()
        return web.json_response({"id": name, "object": "file", "purpose": "batch"})

    async def _create_openai(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert body["completion_window"] == "24h"
        assert body["endpoint"] == "/v1/chat/completions"
        lines = [json.loads(x) for x in self._files[body["input_file_id"]].splitlines()]
        assert all(x["method"] == "POST" and x["url"] == body["endpoint"] for x in lines)
        requests = {x["custom_id"]: x["body"] for x in lines}
        assert len(requests) == len(lines)
        (tag,) = body["metadata"].values()
        return web.json_response(self._openai(self._new(requests, tag)))

    async def _create_anthropic(self, request: web.Request) -> web.Response:
        lines = (await request.json())["requests"]
        requests = {x["custom_id"]: x["params"] for x in lines}
        assert len(requests) == len(lines)
        assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", key) for key in requests)
        return web.json_response(self._anthropic(self._new(requests, None)))

    async def _look(self, request: web.Request) -> web.Response:
        batch = self.batches[request.match_info["id"]]
        if self._auto and batch.status == "running":
            self._run(batch)
        return web.json_response(self._shown(batch))

    async def _list(self, request: web.Request) -> web.Response:
        assert request.query["limit"] == "100"
        newest = [self._shown(batch) for batch in reversed(self.batches.values())]
        after = request.query.get("after") or request.query.get("after_id")
        ids = [value["id"] for value in newest]
        start = ids.index(after) + 1 if after else 0
        page = newest[start : start + 2]  # a short page, so that paging is tested
        more = start + 2 < len(newest)
        return web.json_response({"data": page, "has_more": more})

    async def _content(self, request: web.Request) -> web.Response:
        kind, _, batch_id = request.match_info["id"].partition("-")
        batch = self.batches[batch_id]
        return web.Response(body=b"\n".join(batch.results if kind == "out" else batch.errors))

    async def _results(self, request: web.Request) -> web.Response:
        batch = self.batches[request.match_info["id"]]
        assert batch.status != "running"
        return web.Response(body=b"\n".join([*batch.results, *batch.errors]) + b"\n")

    def _shown(self, batch: Batch) -> dict[str, Any]:
        return self._openai(batch) if batch.tag is not None else self._anthropic(batch)

    def _openai(self, batch: Batch) -> dict[str, Any]:
        statuses = {"running": "in_progress", "ended": "completed"}
        done = len(batch.results)
        counts = {"total": len(batch.requests), "completed": done, "failed": len(batch.errors)}
        failed = batch.status == "failed"
        return {
            "id": batch.id,
            "object": "batch",
            "status": statuses.get(batch.status, batch.status),
            "created_at": int(batch.created_at_s),
            "metadata": {"cgd_ray": batch.tag},
            "request_counts": counts,
            "output_file_id": f"out-{batch.id}" if batch.results else None,
            "error_file_id": f"err-{batch.id}" if batch.errors else None,
            "errors": {"data": [{"message": "the file is bad"}]} if failed else None,
        }

    def _anthropic(self, batch: Batch) -> dict[str, Any]:
        running = batch.status == "running"
        num = len(batch.requests)
        made = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(batch.created_at_s)) + ".5+00:00"
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": "in_progress" if running else "ended",
            "created_at": made,
            "request_counts": {
                "processing": num if running else 0,
                "succeeded": 0 if running else len(batch.results),
                "errored": 0,
                "canceled": 0,
                "expired": 0 if running else len(batch.errors),
            },
            "results_url": "http://127.0.0.1:9/never-asked",
        }

    async def serve(self, started: threading.Event) -> None:
        app = web.Application(middlewares=[self._check], client_max_size=64 << 20)
        app.router.add_post("/v1/files", self._upload)
        app.router.add_post("/v1/batches", self._create_openai)
        app.router.add_get("/v1/files/{id}/content", self._content)
        app.router.add_post("/v1/messages/batches", self._create_anthropic)
        app.router.add_get("/v1/messages/batches/{id}/results", self._results)
        for root in ("/v1/batches", "/v1/messages/batches"):
            app.router.add_get(root, self._list)
            app.router.add_get(f"{root}/{{id}}", self._look)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, shutdown_timeout=0.1)
        await site.start()
        self.port = runner.addresses[0][1]
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()


def _openai_line(key: str, kind: str, text: str) -> dict[str, Any]:
    if kind == "expired":
        error = {"code": "batch_expired", "message": "too late"}
        return {"id": "r", "custom_id": key, "response": None, "error": error}
    body: dict[str, Any] = {
        "model": "scripted-1",
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10},
    }
    if kind != "ok":
        body = {"error": {"message": text}}
    response = {"status_code": _CHAT_STATUS.get(kind, 200), "body": body}
    return {"id": "r", "custom_id": key, "response": response, "error": None}


def _anthropic_line(key: str, kind: str, text: str) -> dict[str, Any]:
    if kind == "ok":
        message = {
            "model": "scripted-1",
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 100, "output_tokens": 10},
        }
        return {"custom_id": key, "result": {"type": "succeeded", "message": message}}
    if kind == "expired":
        return {"custom_id": key, "result": {"type": "expired"}}
    error = {"type": "error", "error": {"type": _ERROR_TYPE[kind], "message": text}}
    return {"custom_id": key, "result": {"type": "errored", "error": error}}


@contextmanager
def batch_server(
    answer: Callable[[dict[str, Any]], Answer], *, auto: bool = True
) -> Iterator[BatchServer]:
    """Run the server in a thread for the length of the block.

    Args:
        answer: what becomes of a request, from its body.
        auto: a batch ends at the first look at it; False: when `finish` is called.
    """
    server = BatchServer(answer, auto=auto)
    with in_thread(server.serve):
        yield server
