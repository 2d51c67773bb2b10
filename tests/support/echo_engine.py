"""An engine that answers with the question, slowly if asked: Ray Serve LLM without a model.

Ray Serve LLM takes it through RAYLLM_VLLM_ENGINE_CLS. "wait 0.5 ..." makes an answer take so many
seconds, a word at a time. Each request's start and end go to the file that ECHO_LOG names.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from ray.llm._internal.serve.core.engine.protocol import LLMEngine
from ray.serve.llm.openai_api_models import ChatCompletionResponse, CompletionResponse

NUM_WORDS = 10


class EchoEngine(LLMEngine):
    """Answers a chat with its last message, a completion with its prompt."""

    def __init__(self, llm_config: Any) -> None:
        self._version = llm_config.experimental_configs.get("version", "")

    async def start(self) -> None:
        note("up")

    async def chat(self, request: Any, raw_request_info: Any = None) -> AsyncIterator[Any]:
        text = request.messages[-1]["content"]
        async for part in self._parts(request, text):
            if not request.stream:
                choice = {"index": 0, "message": {"role": "assistant", "content": part}}
                yield ChatCompletionResponse(
                    model=request.model,
                    choices=[{**choice, "finish_reason": "stop"}],
                    usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
                )
            else:
                choice = {"index": 0, "delta": {"content": part}, "finish_reason": None}
                chunk = {"id": "e", "object": "chat.completion.chunk", "choices": [choice]}
                yield f"data: {json.dumps(chunk)}\n\n"

    async def completions(self, request: Any, raw_request_info: Any = None) -> AsyncIterator[Any]:
        async for part in self._parts(request, str(request.prompt)):
            yield CompletionResponse(
                model=request.model,
                choices=[{"index": 0, "text": part, "finish_reason": "stop"}],
                usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            )

    async def _parts(self, request: Any, text: str) -> AsyncIterator[str]:
        words = text.split()
        seconds = float(words[1]) if words[:1] == ["wait"] else 0.0
        note(f"start {os.getpid()}")
        try:
            for number in range(NUM_WORDS):
                await asyncio.sleep(seconds / NUM_WORDS)
                if request.stream:
                    yield f"{number} "
            if not request.stream:
                yield text
            note(f"end {os.getpid()}")
        except (asyncio.CancelledError, GeneratorExit):
            note(f"cancelled {os.getpid()}")
            raise

    async def check_health(self) -> None: ...
    async def resolve_lora(self, lora_model: Any) -> None: ...
    async def shutdown(self) -> None: ...
    async def reset_prefix_cache(self) -> None: ...
    async def start_profile(self) -> None: ...
    async def stop_profile(self) -> None: ...
    async def embeddings(self, request: Any, raw_request_info: Any = None) -> Any: ...
    async def transcriptions(self, request: Any, raw_request_info: Any = None) -> Any: ...
    async def score(self, request: Any, raw_request_info: Any = None) -> Any: ...
    async def tokenize(self, request: Any, raw_request_info: Any = None) -> Any: ...
    async def detokenize(self, request: Any, raw_request_info: Any = None) -> Any: ...
    def routing_stats(self) -> dict[str, Any]:
        return {}


def note(line: str) -> None:
    """Append a line to the log; short writes in append mode are whole."""
    with Path(os.environ["ECHO_LOG"]).open("a") as log:
        log.write(f"{line}\n")
