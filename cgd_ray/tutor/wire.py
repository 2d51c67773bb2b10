"""The OpenAI chat-completions format: what a request must be, and what goes back."""

import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

_WORD_PIECE = re.compile(r"\d|[^\W\d]+|[^\w\s]")


class ApiError(Exception):
    """A request that gets an error answer.

    Args:
        status: the HTTP status.
        message: one line for a person.
        param: the field at fault.
        code: a short fixed word.
    """

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code

    def body(self) -> dict[str, Any]:
        """Return the error in OpenAI's shape."""
        kind = "authentication_error" if self.status == 401 else "invalid_request_error"
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": error}


def _joined(content: object) -> object:
    """Return the text of a content given as a list of text parts; anything else as it is."""
    if not isinstance(content, list):
        return content
    parts = cast("list[object]", content)
    mappings = [cast("dict[str, object]", part) for part in parts if isinstance(part, dict)]
    strings = [text for part in mappings if isinstance(text := part.get("text"), str)]
    if len(strings) != len(parts):
        raise ValueError("must be a string or a list of text parts")
    return "".join(strings)


class ChatMessage(BaseModel):
    """One turn of a chat."""

    model_config = ConfigDict(frozen=True, strict=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_joined)]


class ChatRequest(BaseModel):
    """The fields that the tutor heeds; the sampling settings have no meaning for it."""

    model_config = ConfigDict(frozen=True, strict=True)

    model: str
    messages: tuple[ChatMessage, ...] = Field(min_length=1)
    n: int | None = None
    stream: bool | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)

    @field_validator("n")
    @classmethod
    def _one(cls, n: int | None) -> int | None:
        if n not in (None, 1):
            raise ValueError("must be 1: the tutor has one answer to each request")
        return n

    @field_validator("stream")
    @classmethod
    def _whole(cls, stream: bool | None) -> bool | None:
        if stream:
            raise ValueError("must be false: the tutor does not stream")
        return stream

    @property
    def token_limit(self) -> int | None:
        """The longest answer that the client wants, by the newer of the two fields."""
        return self.max_completion_tokens or self.max_tokens


@dataclass(frozen=True, slots=True)
class Reply:
    """What the tutor says to a chat: a text, or why it cannot help."""

    turn: Literal["critique", "refinement", "both", "refusal"]
    text: str
    num_cached_messages: int = 0  # leading messages that an earlier request of the chat had


def parse_request(body: bytes) -> ChatRequest:
    """Return the request, or raise the error that names the first field at fault."""
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = _field_name(first["loc"])
        message = f"{param or 'body'}: {first['msg'].removeprefix('Value error, ')}"
        raise ApiError(400, message, param or None, first["type"]) from None


def completion(request: ChatRequest, reply: Reply, model: str) -> dict[str, Any]:
    """Return a `chat.completion` object; its token counts are those of `count_tokens`."""
    text, cut = _cut(reply.text, request.token_limit)
    refused = reply.turn == "refusal"
    message = {
        "role": "assistant",
        "content": None if refused else text,
        "refusal": text if refused else None,
    }
    choice = {"index": 0, "message": message, "finish_reason": "length" if cut else "stop"}
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{**choice, "logprobs": None}],
        "usage": _usage(request.messages, reply.num_cached_messages, count_tokens(text)),
    }


def count_tokens(text: str) -> int:
    """Return an estimate: each word, digit and sign counts as one token."""
    return sum(1 for _ in _WORD_PIECE.finditer(text))


def _usage(messages: Sequence[ChatMessage], num_cached: int, num_output: int) -> dict[str, Any]:
    counts = [count_tokens(message.content) for message in messages]
    return {
        "prompt_tokens": sum(counts),
        "completion_tokens": num_output,
        "total_tokens": sum(counts) + num_output,
        "prompt_tokens_details": {"cached_tokens": sum(counts[:num_cached])},
    }


def _cut(text: str, limit: int | None) -> tuple[str, bool]:
    pieces = list(_WORD_PIECE.finditer(text))
    if limit is None or len(pieces) <= limit:
        return text, False
    return text[: pieces[limit - 1].end()], True


def _field_name(location: tuple[int | str, ...]) -> str:
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return name.removeprefix(".")
