"""What a request's JSON may hold.

The engine's own schema has over a hundred fields, some of which fetch addresses, load tensors,
run templates or multiply the work of one request. So fields are allowed by name; a field that a
later engine adds is refused until somebody has looked at it.
"""

import json
from typing import Any, cast

from cgd_ray.serving.bounds import CHAT, Limits, Refusal

# fmt: off
_COMMON_FIELDS = frozenset((
    "model", "frequency_penalty", "logit_bias", "logprobs", "max_tokens", "n", "presence_penalty",
    "seed", "stop", "stream", "stream_options", "temperature", "top_p", "user", "top_k", "min_p",
    "repetition_penalty", "stop_token_ids", "include_stop_str_in_output", "ignore_eos",
    "min_tokens", "skip_special_tokens", "spaces_between_special_tokens", "response_format",
))
# The last two lines: fields that OpenAI's clients send and our engine ignores.
CHAT_FIELDS = _COMMON_FIELDS | frozenset((
    "messages", "top_logprobs", "max_completion_tokens", "add_generation_prompt",
    "continue_final_message",
    "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
    "parallel_tool_calls",
))
COMPLETION_FIELDS = _COMMON_FIELDS | frozenset((
    "prompt", "suffix", "echo", "add_special_tokens", "return_tokens_as_token_ids",
))
STRUCTURED_FIELDS = frozenset(("tools", "tool_choice"))

_INT64 = 2**63
_BOOLEANS = (
    "stream", "include_stop_str_in_output", "ignore_eos", "skip_special_tokens", "echo",
    "add_special_tokens", "spaces_between_special_tokens", "add_generation_prompt",
    "continue_final_message", "return_tokens_as_token_ids",
)
# fmt: on
# Field -> lowest, highest. Floats take whole numbers too.
_FLOATS = {
    "frequency_penalty": (-2.0, 2.0),
    "presence_penalty": (-2.0, 2.0),
    "repetition_penalty": (0.01, 100.0),
    "temperature": (0.0, 100.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
}
_INTEGERS = {"top_k": (-1, 2**31 - 1), "seed": (-_INT64, _INT64 - 1), "top_logprobs": (0, 20)}
_MAX_STOPS = 16
_MAX_STOP_LENGTH = 256  # characters
_MAX_BIASES = 300
_ROLES = ("system", "developer", "user", "assistant", "tool")
_MESSAGE_KEYS = frozenset(("role", "content", "name"))
_TOOL_KEYS = frozenset(("tool_calls", "tool_call_id"))


class _RefusedError(Exception):
    """Ends the checks of a body at the first thing that is wrong."""

    def __init__(self, param: str | None, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.status = status


def check_body(path: str, body: bytes, limits: Limits) -> Refusal | None:
    """Return why a request is refused: malformed, out of bounds, not offered; or an unknown model.

    Args:
        path: CHAT or COMPLETIONS.
        body: the request's JSON.
        limits: bounds.
    """
    try:
        data = _parsed(body)
        _check_fields(path, data, limits)
        _check_values(data, limits)
        if path == CHAT:
            _check_messages(data.get("messages"), limits)
            _check_choices(data, 1, limits)
        else:
            _integer(data, "logprobs", 0, 20)
            _check_choices(data, _num_prompts(data.get("prompt")), limits)
    except _RefusedError as error:
        code = "model_not_found" if error.status == 404 else "invalid_value"
        return Refusal(error.status, str(error), code, error.param)
    return None


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        text = body.decode("utf-8")
        data = json.loads(text, parse_constant=_no_constant)
        if "\\u" in text:  # an escape can name half a character, which no tokenizer can take
            json.dumps(data, ensure_ascii=False).encode("utf-8")
    except UnicodeError as error:
        raise _RefusedError(None, "the request holds characters that are not Unicode") from error
    except RecursionError as error:
        raise _RefusedError(None, "the request is nested too deeply") from error
    except ValueError as error:
        raise _RefusedError(None, f"the request is not JSON: {str(error)[:200]}") from error
    if not isinstance(data, dict):
        raise _RefusedError(None, "the request is not a JSON object")
    return cast("dict[str, Any]", data)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _check_fields(path: str, data: dict[str, Any], limits: Limits) -> None:
    fields = CHAT_FIELDS if path == CHAT else COMPLETION_FIELDS
    if limits.structured_outputs and path == CHAT:
        fields |= STRUCTURED_FIELDS
    for name in data:
        if name not in fields:
            raise _RefusedError(name[:80], f"the field {name[:80]!r} is not accepted here")
    model = data.get("model")
    if not isinstance(model, str):
        raise _RefusedError("model", "model must be given, as text")
    # Here, because Ray Serve LLM would take what follows a colon for the path of an adapter.
    if model not in limits.models:
        raise _RefusedError("model", f"there is no model {model[:80]!r} here", 404)


def _check_values(data: dict[str, Any], limits: Limits) -> None:
    for name in _BOOLEANS:
        if not isinstance(data.get(name), bool | None):
            raise _RefusedError(name, f"{name} must be true or false")
    for name in ("user", "suffix"):
        if not isinstance(data.get(name), str | None):
            raise _RefusedError(name, f"{name} must be text")
    for name, (low, high) in _FLOATS.items():
        _float(data, name, low, high)
    for name, (low, high) in _INTEGERS.items():
        _integer(data, name, low, high)
    for name, low in (("max_tokens", 0), ("max_completion_tokens", 1), ("min_tokens", 0)):
        _integer(data, name, low, limits.max_tokens, " (serve.max_tokens)")
    _check_stops(data.get("stop"))
    _check_biases(data)
    plain = data.get("response_format") in (None, {"type": "text"})
    if not plain and not limits.structured_outputs:
        raise _RefusedError(
            "response_format", "only plain text is served here (serve.structured_outputs is off)"
        )


def _float(data: dict[str, Any], name: str, low: float, high: float) -> None:
    value = data.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _RefusedError(name, f"{name} must be a number")
    if not low <= value <= high:
        raise _RefusedError(name, f"{name}={_shown(value)} is not between {low:g} and {high:g}")


def _integer(data: dict[str, Any], name: str, low: int, high: int, setting: str = "") -> int | None:
    """Return a field's whole number; None where it is absent or null."""
    value = data.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise _RefusedError(name, f"{name} must be a whole number")
    if not low <= value <= high:
        said = f"{name}={_shown(value)} is not between {low} and {high}{setting}"
        raise _RefusedError(name, said)
    return value


def _shown(value: float) -> str:
    """Return a number as text; Python refuses to write whole numbers of thousands of digits."""
    return f"{value}" if isinstance(value, float) or abs(value) < 10**20 else "(over 20 digits)"


def _check_stops(stop: object) -> None:
    if stop is None:
        return
    stops: list[object] = cast("list[object]", stop) if isinstance(stop, list) else [stop]
    if len(stops) > _MAX_STOPS:
        raise _RefusedError("stop", f"{len(stops)} stops are more than {_MAX_STOPS}")
    for one in stops:
        if not isinstance(one, str) or not 1 <= len(one) <= _MAX_STOP_LENGTH:
            raise _RefusedError("stop", f"each stop is text of 1 to {_MAX_STOP_LENGTH} characters")


def _check_biases(data: dict[str, Any]) -> None:
    biases = data.get("logit_bias")
    if biases is not None:
        if not isinstance(biases, dict) or len(cast("dict[str, Any]", biases)) > _MAX_BIASES:
            raise _RefusedError("logit_bias", f"logit_bias holds at most {_MAX_BIASES} token ids")
        for token_id in cast("dict[str, Any]", biases):
            if not (token_id.isascii() and token_id.isdigit() and len(token_id) < 10):
                raise _RefusedError("logit_bias", "each key of logit_bias must be a token id")
            _float(cast("dict[str, Any]", biases), token_id, -100.0, 100.0)
    stops = data.get("stop_token_ids")
    if stops is None:
        return
    if not isinstance(stops, list) or len(cast("list[object]", stops)) > _MAX_BIASES:
        raise _RefusedError("stop_token_ids", f"stop_token_ids lists at most {_MAX_BIASES} ids")
    if not all(_is_id(one) for one in cast("list[object]", stops)):
        raise _RefusedError("stop_token_ids", "each stop token must be a token id")


def _check_messages(messages: object, limits: Limits) -> None:
    if not isinstance(messages, list) or not messages:
        raise _RefusedError("messages", "messages must be a list with at least one message")
    keys = _MESSAGE_KEYS | _TOOL_KEYS if limits.structured_outputs else _MESSAGE_KEYS
    for one in cast("list[object]", messages):
        if not isinstance(one, dict):
            raise _RefusedError("messages", "each message must be an object")
        message = cast("dict[str, Any]", one)
        if message.get("role") not in _ROLES:
            raise _RefusedError("messages", f"each message's role is one of {', '.join(_ROLES)}")
        # Clients send an earlier answer back as it came: with fields that hold nothing.
        if strange := [key for key, value in message.items() if value and key not in keys]:
            raise _RefusedError("messages", f"a message's {strange[0][:80]!r} is not accepted here")
        if not isinstance(message.get("name"), str | None):
            raise _RefusedError("messages", "a message's name must be text")
        _check_content(message.get("content"), optional="tool_calls" in message)


def _check_content(content: object, *, optional: bool) -> None:
    """Refuse what is not text: the engine would fetch the address of an image."""
    if isinstance(content, str) or (content is None and optional):
        return
    if not isinstance(content, list) or not content:
        raise _RefusedError("messages", "a message's content must be text")
    for part in cast("list[object]", content):
        text = cast("dict[str, Any]", part) if isinstance(part, dict) else {}
        if set(text) != {"type", "text"} or text["type"] != "text":
            raise _RefusedError("messages", "a message's content may hold text parts alone")
        if not isinstance(text["text"], str):
            raise _RefusedError("messages", "a message's text parts must hold text")


def _num_prompts(prompt: object) -> int:
    """Return the number of prompts of a completion request."""
    if isinstance(prompt, str):
        return 1
    parts = cast("list[object]", prompt) if isinstance(prompt, list) else []
    if parts and all(_is_id(part) for part in parts):
        return 1
    if not parts or not all(isinstance(part, str) or _are_ids(part) for part in parts):
        raise _RefusedError("prompt", "prompt must be text, token ids or a list of either")
    if len({isinstance(part, str) for part in parts}) > 1:
        raise _RefusedError("prompt", "prompts are all text or all token ids")
    return len(parts)


def _are_ids(value: object) -> bool:
    ids = cast("list[object]", value) if isinstance(value, list) else []
    return bool(ids) and all(_is_id(one) for one in ids)


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _check_choices(data: dict[str, Any], num_prompts: int, limits: Limits) -> None:
    n = _integer(data, "n", 1, limits.max_choices, " (serve.max_choices)") or 1
    if num_prompts * n > limits.max_choices:
        raise _RefusedError(
            "prompt",
            f"{num_prompts} prompts with n={n} ask for more than {limits.max_choices} answers "
            "(serve.max_choices)",
        )
