"""OpenAI's batch API: a file of requests, a batch made of it, files of results."""

import json
from collections.abc import Sequence

from cgd_ray.teacher.wire.base import (
    ChatOptions,
    HttpRequest,
    HttpResponse,
    count_of,
    joined,
    json_object,
    json_request,
    line,
    list_of,
    no_answer,
    part,
    text_of,
)
from cgd_ray.teacher.wire.batch import BatchResult, BatchState, BatchWire, id_of

_ENDPOINT = "/v1/chat/completions"
_TAG = "cgd_ray"  # key of the metadata that holds our name of a batch
_BOUNDARY = "cgd-ray-batch-4f1c9a7e2b"  # JSON lines never begin with it: they begin with a brace
_PAGE = 100
_RUNNING = ("validating", "in_progress", "finalizing", "cancelling")


def build_line(key: str, request: HttpRequest) -> bytes:
    """Return one line of the file of requests."""
    head = json.dumps({"custom_id": key, "method": "POST", "url": _ENDPOINT}).encode()
    return head[:-1] + b', "body": ' + request.body + b"}"


def build_upload(options: ChatOptions, lines: Sequence[bytes], tag: str) -> HttpRequest:
    """Return the request that stores the lines as a file."""
    name = f'name="file"; filename="{tag}.jsonl"'
    edge = f"--{_BOUNDARY}\r\nContent-Disposition: form-data; "
    head = f'{edge}name="purpose"\r\n\r\nbatch\r\n{edge}{name}\r\n'
    head += "Content-Type: application/jsonl\r\n\r\n"
    body = b"".join([head.encode(), b"\n".join(lines), f"\r\n--{_BOUNDARY}--\r\n".encode()])
    kind = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
    return HttpRequest(joined(options.base_url, "/files"), body, kind)


def parse_upload(response: HttpResponse) -> str:
    """Return the id of the stored file. Raises TeacherError: there is none."""
    return id_of(json_object(response))


def build_create(
    options: ChatOptions, lines: Sequence[bytes], file_id: str, tag: str
) -> HttpRequest:
    """Return the request that makes a batch of a stored file."""
    body = {
        "input_file_id": file_id,
        "endpoint": _ENDPOINT,
        "completion_window": "24h",
        "metadata": {_TAG: tag},
    }
    return json_request(joined(options.base_url, "/batches"), body)


def build_look(options: ChatOptions, batch_id: str) -> HttpRequest:
    """Return the question how a batch is."""
    return HttpRequest(joined(options.base_url, f"/batches/{batch_id}"), method="GET")


def build_list(options: ChatOptions, after: str | None) -> HttpRequest:
    """Return the question for the batches there are."""
    url = joined(options.base_url, "/batches")
    query = f"limit={_PAGE}" + (f"&after={after}" if after else "")
    return HttpRequest(f"{url}{'&' if '?' in url else '?'}{query}", method="GET")


def build_results(options: ChatOptions, state: BatchState) -> list[HttpRequest]:
    """Return the questions for the files of answers and of errors."""
    paths = [f"/files/{file}/content" for file in state.files]
    return [HttpRequest(joined(options.base_url, path), method="GET") for path in paths]


def parse_result(data: bytes) -> BatchResult:
    """Return what became of one request. Raises TeacherError: the line is no result."""
    value = json_object(HttpResponse(200, {}, data, 0.0))
    key = text_of(value, "custom_id")
    if key is None:
        raise no_answer("no custom_id", value)
    response = part(value, "response")
    status = count_of(response, "status_code")
    if not status:  # an error of the batch's own: expired, cancelled
        return BatchResult(key, None)
    return BatchResult(
        key, HttpResponse(status, {}, json.dumps(part(response, "body")).encode(), 0.0)
    )


def _state(value: object) -> BatchState:
    status = text_of(value, "status") or ""
    counts = part(value, "request_counts")
    files = (text_of(value, "output_file_id"), text_of(value, "error_file_id"))
    running = status in _RUNNING
    failed = status == "failed"
    return BatchState(
        id=id_of(value),
        tag=text_of(part(value, "metadata"), _TAG) or "",
        created_at_s=float(count_of(value, "created_at")),
        num_requests=count_of(counts, "total"),
        num_done=count_of(counts, "completed") + count_of(counts, "failed"),
        status="running" if running else "failed" if failed else "ended",
        detail=_errors(value),
        files=tuple(file for file in files if file),
    )


def _errors(value: object) -> str:
    errors = list_of(part(value, "errors"), "data") or []
    return line("; ".join(text_of(error, "message") or "no explanation" for error in errors[:3]))


OPENAI_BATCH = BatchWire(
    build_line,
    build_upload,
    parse_upload,
    build_create,
    _state,
    build_look,
    build_list,
    build_results,
    parse_result,
)
