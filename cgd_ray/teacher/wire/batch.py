"""What the formats of batch APIs share: many chats handed in at once, answered within a day.

All of it is pure: `cgd_ray.teacher.batch` does the sending.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from cgd_ray.teacher.completion import TeacherError
from cgd_ray.teacher.wire.base import (
    ChatOptions,
    HttpRequest,
    HttpResponse,
    json_object,
    line,
    list_of,
    text_of,
)


@dataclass(frozen=True, slots=True)
class BatchState:
    """One batch as its provider describes it."""

    id: str
    tag: str | None  # the name that we gave it; None where a provider keeps none
    created_at_s: float  # Unix time
    num_requests: int  # 0: not counted yet
    num_done: int
    status: Literal["running", "ended", "failed"]  # failed: refused as a whole, no request was made
    detail: str = ""  # why it failed
    files: tuple[str, ...] = ()  # of its results


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of one request of a batch."""

    key: str
    response: HttpResponse | None  # as a chat call's; None: it was never made, and costs nothing


@dataclass(frozen=True, slots=True)
class BatchWire:
    """A provider's batch format, as pure functions. The parsers raise TeacherError."""

    build_line: Callable[[str, HttpRequest], bytes]
    """Key and chat request -> the request as a part of a batch, one line of JSON."""
    build_upload: Callable[[ChatOptions, Sequence[bytes], str], HttpRequest] | None
    """Lines and tag -> the request that stores them; None: they go into the creation."""
    parse_upload: Callable[[HttpResponse], str]
    """Its response -> the id of the stored file."""
    build_create: Callable[[ChatOptions, Sequence[bytes], str, str], HttpRequest]
    """Lines, file id and tag -> the request that creates a batch."""
    read_state: Callable[[object], BatchState]
    """A batch as the provider's JSON -> the batch."""
    build_look: Callable[[ChatOptions, str], HttpRequest]
    """Batch id -> the question how it is."""
    build_list: Callable[[ChatOptions, str | None], HttpRequest]
    """The last id of the page before -> the question for the batches there are, newest first."""
    build_results: Callable[[ChatOptions, BatchState], list[HttpRequest]]
    """A batch that ended -> the questions for its results."""
    parse_result: Callable[[bytes], BatchResult]
    """One line of the results -> what became of a request."""


def parse_state(wire: BatchWire, response: HttpResponse) -> BatchState:
    """Return the batch that a creation or a look tells of. Raises TeacherError: there is none."""
    return wire.read_state(json_object(response))


def parse_list(wire: BatchWire, response: HttpResponse) -> tuple[list[BatchState], bool]:
    """Return a page of batches, and whether there is another. Raises TeacherError: it is none."""
    answer = json_object(response)
    found = [wire.read_state(value) for value in list_of(answer, "data") or ()]
    return found, bool(answer.get("has_more"))


def id_of(value: object) -> str:
    """Return the id of an object, one that can stand in an address.

    Raises:
        TeacherError: it has none.
    """
    found = text_of(value, "id") or ""
    if not found.replace("-", "").replace("_", "").isalnum():
        raise TeacherError("bad_answer", f"an id that is none: {line(found)[:80] or 'nothing'}")
    return found
