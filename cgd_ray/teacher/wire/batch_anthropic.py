"""Anthropic's message batches: all requests in the creation, one file of results.

A batch has no name of ours. One whose creation was not recorded is told by its time and number of
requests, and for good by the keys in its results.
"""

import json
from collections.abc import Sequence
from datetime import datetime

from cgd_ray.teacher.completion import TeacherError
from cgd_ray.teacher.wire.anthropic import VERSION
from cgd_ray.teacher.wire.base import (
    JSON_HEADERS,
    ChatOptions,
    HttpRequest,
    HttpResponse,
    count_of,
    joined,
    json_object,
    line,
    no_answer,
    part,
    text_of,
)
from cgd_ray.teacher.wire.batch import BatchResult, BatchState, BatchWire, id_of

_PATH = "/v1/messages/batches"
_HEADERS = {"anthropic-version": VERSION}
_PAGE = 100
_COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")
# The statuses that the same errors of the chat API come with.
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


def build_line(key: str, request: HttpRequest) -> bytes:
    """Return one of the requests of a creation."""
    return b'{"custom_id": ' + json.dumps(key).encode() + b', "params": ' + request.body + b"}"


def parse_upload(response: HttpResponse) -> str:
    """Refuse: nothing is uploaded apart."""
    raise AssertionError("Anthropic's batches have no upload")


def build_create(
    options: ChatOptions, lines: Sequence[bytes], file_id: str, tag: str
) -> HttpRequest:
    """Return the request that makes a batch of the lines."""
    body = b'{"requests": [' + b",\n".join(lines) + b"]}"
    return HttpRequest(joined(options.base_url, _PATH), body, {**JSON_HEADERS, **_HEADERS})


def build_look(options: ChatOptions, batch_id: str) -> HttpRequest:
    """Return the question how a batch is."""
    return _get(options, f"{_PATH}/{batch_id}")


def build_list(options: ChatOptions, after: str | None) -> HttpRequest:
    """Return the question for the batches there are."""
    request = _get(options, _PATH)
    query = f"?limit={_PAGE}" + (f"&after_id={after}" if after else "")
    return HttpRequest(request.url + query, headers=_HEADERS, method="GET")


def build_results(options: ChatOptions, state: BatchState) -> list[HttpRequest]:
    """Return the question for the results.

    The address is ours, not the `results_url` of the answer: the key goes to no other host.
    """
    return [_get(options, f"{_PATH}/{state.id}/results")]


def parse_result(data: bytes) -> BatchResult:
    """Return what became of one request. Raises TeacherError: the line is no result."""
    value = json_object(HttpResponse(200, {}, data, 0.0))
    key = text_of(value, "custom_id")
    if key is None:
        raise no_answer("no custom_id", value)
    result = part(value, "result")
    kind = text_of(result, "type")
    if kind == "succeeded":
        body = json.dumps(part(result, "message")).encode()
        return BatchResult(key, HttpResponse(200, {}, body, 0.0))
    if kind == "errored":
        error = part(result, "error")
        status = _STATUS.get(text_of(part(error, "error"), "type") or "", 500)
        return BatchResult(key, HttpResponse(status, {}, json.dumps(error).encode(), 0.0))
    return BatchResult(key, None)


def _state(value: object) -> BatchState:
    counts = part(value, "request_counts")
    numbers = [count_of(counts, name) for name in _COUNTS]
    ended = text_of(value, "processing_status") == "ended"
    return BatchState(
        id=id_of(value),
        tag=None,
        created_at_s=_unix_time(text_of(value, "created_at")),
        num_requests=sum(numbers),
        num_done=sum(numbers[1:]),
        status="ended" if ended else "running",
    )


def _get(options: ChatOptions, path: str) -> HttpRequest:
    return HttpRequest(joined(options.base_url, path), headers=_HEADERS, method="GET")


def _unix_time(text: str | None) -> float:
    try:
        return datetime.fromisoformat(text or "").timestamp()
    except ValueError as error:
        raise TeacherError("bad_answer", f"created_at is no time: {line(text)}") from error


ANTHROPIC_BATCH = BatchWire(
    build_line,
    None,
    parse_upload,
    build_create,
    _state,
    build_look,
    build_list,
    build_results,
    parse_result,
)
