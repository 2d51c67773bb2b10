"""A teacher behind any OpenAI-compatible chat API.

The client library sends; retries, limits and validation are ours, because it accepts HTML and error
bodies as answers, follows redirects and ignores long `Retry-After` (design: reliability).
"""

import os
import time
from pathlib import Path
from typing import Any

import httpx2
import openai
from openai.types.chat import ChatCompletionMessage

from cgd_ray.errors import UserError
from cgd_ray.prompts.messages import Message
from cgd_ray.teacher.completion import Completion, TeacherError
from cgd_ray.teacher.retry import parse_retry_after


def read_api_key(variable: str, file: str | None) -> str:
    """Return the key from its file or variable; "none" if neither exists, for keyless servers.

    Raises:
        UserError: the file cannot be read.
    """
    if file is None:
        return os.environ.get(variable) or "none"
    try:
        return Path(file).expanduser().read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UserError(f"teacher.api_key_file={file}: {error.strerror}") from error


class OpenAIBackend:
    """Asks for chat completions.

    Args:
        base_url: root of the API.
        model: name as the API knows it.
        api_key: bearer token.
        temperature: of sampling.
        timeout_s: limit on one call.
        max_in_flight: connections kept open.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str,
        temperature: float,
        timeout_s: float,
        max_in_flight: int,
    ) -> None:
        self._model = model
        self._temperature = temperature
        limits = httpx2.Limits(
            max_connections=max_in_flight, max_keepalive_connections=max_in_flight
        )
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key,
            max_retries=0,
            timeout=timeout_s,
            http_client=httpx2.AsyncClient(
                follow_redirects=False, limits=limits, timeout=timeout_s, trust_env=False
            ),
        )

    async def complete(self, messages: list[Message], max_tokens: int) -> Completion:
        """Return the answer to one chat.

        Raises:
            TeacherError: there is none; it says whether to try again.
        """
        request: Any = messages
        try:
            answer = await self._client.chat.completions.create(
                model=self._model,
                messages=request,
                max_tokens=max_tokens,
                temperature=self._temperature,
            )
        except openai.APIStatusError as error:
            raise _from_status(error) from error
        except openai.APITimeoutError as error:
            raise TeacherError("timeout", "no answer within teacher.timeout_s") from error
        except (openai.APIConnectionError, httpx2.HTTPError) as error:
            why = _line(error.__cause__ or "") or _line(error)
            raise TeacherError("connection", why) from error
        except (openai.OpenAIError, ValueError, RecursionError) as error:
            raise TeacherError("bad_answer", _line(error)) from error
        return _validated(answer, self._model)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _validated(answer: object, model: str) -> Completion:
    """Return an answer whose every part is there and of the right type."""
    choices = getattr(answer, "choices", None)
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(choice, "message", None)
    if not isinstance(message, ChatCompletionMessage):
        shown = _line(answer) if isinstance(answer, str) else "no choices in the answer"
        raise TeacherError("bad_answer", f"not a chat completion: {shown}")
    usage = getattr(answer, "usage", None)
    details = getattr(usage, "prompt_tokens_details", None)
    return Completion(
        text=_text(message, "content") or "",
        model=_text(answer, "model") or model,
        finish_reason=_text(choice, "finish_reason") or "stop",
        refusal=_text(message, "refusal"),
        num_input_tokens=_count(usage, "prompt_tokens"),
        num_cached_tokens=_count(details, "cached_tokens"),
        num_output_tokens=_count(usage, "completion_tokens"),
    )


def _text(part: object, name: str) -> str | None:
    value = getattr(part, name, None)
    if value is not None and not isinstance(value, str):
        raise TeacherError("bad_answer", f"{name} is {type(value).__name__}, not text")
    if value and _storable(value) != value:
        raise TeacherError("bad_answer", f"{name} holds lone surrogates, which no file can store")
    return value


def _count(part: object, name: str) -> int:
    value = getattr(part, name, None)
    return value if isinstance(value, int) and 0 <= value < 2**31 else 0


def _from_status(error: openai.APIStatusError) -> TeacherError:
    status = error.status_code
    detail = f"HTTP {status}: {_line(error.message)}"
    wait = parse_retry_after(error.response.headers.get("retry-after"), time.time())
    if status in (401, 403):
        return TeacherError("unauthorized", detail, stop=True)
    if status == 429:
        return TeacherError("rate_limited", detail, retry_after_s=wait)
    if status in (408, 409) or status >= 500:
        return TeacherError("overloaded", detail, retry_after_s=wait)
    if 300 <= status < 400:
        return TeacherError("redirect", f"{detail} (never followed)", stop=True)
    if status == 404:
        return TeacherError("not_found", detail, stop=True)
    return TeacherError("bad_request", detail, permanent=True)


def _line(value: object) -> str:
    return _storable(" ".join(str(value).split())[:300])


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
