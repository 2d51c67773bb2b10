"""Ray Serve LLM's routes behind our gateway, errors as OpenAI's clients read them, and engines.

Ray's own ingress application answers any origin (CORS `*`), has nine routes and no gateway.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError
from ray.llm._internal.common.errors import VLLM_FATAL_ERRORS
from ray.llm._internal.serve.core.configs.llm_config import DiskMultiplexConfig
from ray.llm._internal.serve.core.configs.openai_api_models import OpenAIHTTPException
from ray.llm._internal.serve.utils.batcher import Batcher
from ray.llm._internal.serve.utils.server_utils import get_response_for_error
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from ray.serve.llm.deployment import LLMServer
from ray.serve.llm.ingress import OpenAiIngress, make_fastapi_ingress
from ray.serve.llm.openai_api_models import ChatCompletionRequest, CompletionRequest
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cgd_ray.model_folders import on_this_node
from cgd_ray.serving.bounds import CHAT, COMPLETIONS, MODELS, Refusal
from cgd_ray.serving.gateway import Gateway, Policy
from cgd_ray.serving.metrics import GatewayMeter
from cgd_ray.serving.streams import first_at_once, gather_ms

# Keys of an LLMConfig's experimental_configs.
ADAPTERS = "cgd_adapters"  # (id, folder) pairs
ON_GPU = "cgd_on_gpu"  # what the engine runs on
MODEL = "cgd_model"  # its source, and the root of the store that trained students are in
_ENGINE_GONE = (ActorDiedError, ActorUnavailableError, *VLLM_FATAL_ERRORS)


class Ingress(OpenAiIngress):
    """Passes a request to an engine, and to another one if that dies before its first word."""

    def __init__(self, llm_deployments: dict[str, DeploymentHandle], **rest: Any) -> None:  # noqa: ANN401
        engines = {name: _Engine(handle) for name, handle in llm_deployments.items()}
        super().__init__(engines, **rest)  # type: ignore[arg-type]

    async def chat(self, body: ChatCompletionRequest, request: Request) -> Response:
        """Answer a chat."""
        return await _twice(lambda: OpenAiIngress.chat(self, body, request))

    async def completions(self, body: CompletionRequest, request: Request) -> Response:
        """Complete a text."""
        return await _twice(lambda: OpenAiIngress.completions(self, body, request))


class _Engine:
    """A deployment's handle whose engine stops when nobody waits for the answer any more.

    Serve stops it when a client has gone, not when our own time limit ends the wait.
    """

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    def options(self, **options: Any) -> "_Engine":  # noqa: ANN401
        return _Engine(self._handle.options(**options))

    def __getattr__(self, method: str) -> "_Call":
        return _Call(getattr(self._handle, method))


class _Call:
    """One method of an engine."""

    def __init__(self, method: DeploymentHandle) -> None:
        self._method = method

    async def remote(self, *args: Any) -> AsyncIterator[Any]:  # noqa: ANN401
        response: Any = self._method.remote(*args)  # of a handle with stream=True
        try:
            async for part in response:
                yield part
        except asyncio.CancelledError:
            response.cancel()
            raise


class EngineServer(LLMServer):
    """An engine that loads its LoRA students when it starts, and sends first words at once.

    Ray's own multiplexing takes adapters from a bucket, under a name that the client chooses: a
    client could name any of its paths.
    """

    _num_streams = 0

    async def _batch_output_stream(
        self, generator: AsyncGenerator[Any, None]
    ) -> AsyncGenerator[list[Any], None]:
        self._num_streams += 1
        try:
            async with aclosing(first_at_once(generator, self._gathered)) as batches:
                async for batch in batches:
                    yield batch
        finally:
            self._num_streams -= 1

    def _gathered(self, parts: AsyncGenerator[Any, None]) -> AsyncGenerator[list[Any], None]:
        on_gpu = self._llm_config.experimental_configs[ON_GPU]
        interval: Any = gather_ms(self._num_streams, on_gpu=on_gpu)
        return Batcher(parts, interval_ms=interval).stream()  # type: ignore[return-value]

    async def start(self) -> None:
        """Start the engine, fetch its model before where it is missing, and load its adapters."""
        source, root = self._llm_config.experimental_configs[MODEL]
        await asyncio.to_thread(on_this_node, source, root)
        await super().start()
        engine: Any = self.engine
        for number, (name, folder) in enumerate(self._llm_config.experimental_configs[ADAPTERS], 1):
            adapter = DiskMultiplexConfig(
                model_id=name, max_total_tokens=None, local_path=folder, lora_assigned_int_id=number
            )
            await engine.resolve_lora(adapter)


def ingress_class(policy: Policy, cors_origins: tuple[str, ...]) -> type:
    """Return the deployment class of the guarded routes."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    for kind in (OpenAIHTTPException, RequestValidationError, HTTPException, RayError, Exception):
        app.add_exception_handler(kind, _error_response)
    app.add_middleware(Gateway, policy=policy, make_meter=GatewayMeter)
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    routes = {
        "models": lambda app: app.get(MODELS),
        "completions": lambda app: app.post(COMPLETIONS),
        "chat": lambda app: app.post(CHAT),
    }
    return make_fastapi_ingress(Ingress, endpoint_map=routes, app=app)


async def _twice(answer: Callable[[], Awaitable[Response]]) -> Response:
    try:
        return await answer()
    except _ENGINE_GONE:
        return await answer()


async def _error_response(request: Request, error: Exception) -> Response:
    refusal = _refusal(error)
    headers = {} if refusal.retry_after_s is None else {"Retry-After": str(refusal.retry_after_s)}
    return Response(refusal.body(), refusal.status, headers=headers, media_type="application/json")


def _refusal(error: Exception) -> Refusal:
    """Return what a client is told; what went wrong inside is in the replica's log alone."""
    if isinstance(error, BackPressureError):
        return Refusal(429, "the engines are full: try again later", "overloaded", None, 1)
    if isinstance(error, (*_ENGINE_GONE, DeploymentUnavailableError)):
        return Refusal(503, "the engine is starting anew: try again", "unavailable", None, 1)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return Refusal(400, f"{where}: {first['msg']}"[:500], "invalid_value", where or None)
    status = get_response_for_error(error, "").error.code  # logs it, too
    if status >= 500:
        return Refusal(status, "the server failed to answer", "server_error")
    message = getattr(error, "message", None) or getattr(error, "detail", None) or str(error)
    code = "model_not_found" if status == 404 else "invalid_value"
    return Refusal(status, str(message)[:500], code)
