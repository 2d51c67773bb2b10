"""A provider's batch API: hand in, find again, look, fetch; each request with its own retries.

A creation is the one request that must not be repeated blindly: where its answer is lost, the
provider's list of batches says whether it happened.
"""

import asyncio
import random
import time
from collections.abc import Container, Sequence
from contextlib import suppress
from dataclasses import dataclass

from cgd_ray.settings import TeacherSettings
from cgd_ray.teacher.backend import open_http
from cgd_ray.teacher.completion import Completion, TeacherError
from cgd_ray.teacher.journal import Question
from cgd_ray.teacher.retry import backoff_s
from cgd_ray.teacher.wire.base import HttpRequest, HttpResponse, status_error
from cgd_ray.teacher.wire.batch import (
    BatchResult,
    BatchState,
    BatchWire,
    parse_list,
    parse_state,
)
from cgd_ray.teacher.wire.batch_anthropic import ANTHROPIC_BATCH
from cgd_ray.teacher.wire.batch_openai import OPENAI_BATCH

BATCH_WIRES: dict[str, BatchWire] = {"openai": OPENAI_BATCH, "anthropic": ANTHROPIC_BATCH}
_LONGEST_RESULTS_BYTES = 1 << 30
_TRANSFER_TIMEOUT_S = 900.0  # of a request: files of requests and results are large
_CLOCK_SKEW_S = 600.0  # between this machine and the provider
# Of a creation these say that there is no batch; after any other error there may be one.
_NOT_CREATED = frozenset({"rate_limited", "bad_request", "bad_address", "refused_address"})


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of one question: an answer, or why there is none."""

    key: str
    answer: Completion | None
    error: TeacherError | None = None


class BatchClient:
    """Speaks a provider's batch API. It belongs to one event loop.

    Args:
        settings: of the teacher.
        base_url: root of its API.
    """

    def __init__(self, settings: TeacherSettings, base_url: str) -> None:
        patient = {"timeout_s": max(settings.timeout_s, _TRANSFER_TIMEOUT_S)}
        self._http = open_http(settings.model_copy(update=patient), base_url)
        self._wire = BATCH_WIRES[settings.backend]
        self._max_attempts = settings.max_attempts
        self._draw = random.Random()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    def line(self, question: Question) -> bytes:
        """Return a question as one line of a batch."""
        http = self._http
        messages = list(question.messages)
        request = http.wire.build_request(http.options, messages, question.max_tokens)
        return self._wire.build_line(question.key, request)

    async def create(self, lines: Sequence[bytes], tag: str, known: Container[str]) -> list[str]:
        """Hand a batch in; return its id, or those that may be its.

        Args:
            lines: of the batch.
            tag: name that no other batch has.
            known: ids of other batches.

        Raises:
            TeacherError: there is no batch.
        """
        options = self._http.options
        at_s, file_id = time.time(), ""
        if self._wire.build_upload is not None:
            upload = self._wire.build_upload(options, lines, tag)
            file_id = self._wire.parse_upload(await self._sent(upload))
        request = self._wire.build_create(options, lines, file_id, tag)
        attempt = 1
        while True:
            try:
                return [parse_state(self._wire, _good(await self._http.send(request))).id]
            except TeacherError as error:
                if error.permanent or error.stop:
                    raise
                await self._pause(attempt, error)
                if error.reason not in _NOT_CREATED:
                    found = await self.find(tag, at_s, len(lines), known)
                    if found:
                        return found
                if attempt >= self._max_attempts:
                    raise
                attempt += 1

    async def find(
        self, tag: str, at_s: float, num_requests: int, known: Container[str]
    ) -> list[str]:
        """Return the ids of the batches that may have been handed in under a tag.

        Args:
            tag: of the batch.
            at_s: Unix time before its creation.
            num_requests: in it.
            known: ids of other batches.

        Raises:
            TeacherError: the list cannot be read.
        """
        found: list[str] = []
        after: str | None = None
        while True:
            request = self._wire.build_list(self._http.options, after)
            page, more = parse_list(self._wire, await self._sent(request))
            recent = [state for state in page if state.created_at_s >= at_s - _CLOCK_SKEW_S]
            found += [s.id for s in recent if s.id not in known and _may_be(s, tag, num_requests)]
            if not more or len(recent) < len(page) or not page:
                return found
            after = page[-1].id

    async def look(self, batch_id: str) -> BatchState:
        """Return how a batch is. Raises TeacherError."""
        request = self._wire.build_look(self._http.options, batch_id)
        return parse_state(self._wire, await self._sent(request))

    async def results(self, state: BatchState) -> list[Answered]:
        """Return what became of the requests of a batch that ended, in any order.

        Raises:
            TeacherError: the results cannot be read.
        """
        found: list[Answered] = []
        for request in self._wire.build_results(self._http.options, state):
            response = await self._sent(request)
            for line in response.body.splitlines():
                # A line that names no question leaves its question open.
                with suppress(TeacherError):
                    found.append(self._answered(self._wire.parse_result(line)))
        return found

    def _answered(self, result: BatchResult) -> Answered:
        if result.response is None:
            return Answered(result.key, None)
        http = self._http
        try:
            return Answered(result.key, http.wire.parse_response(http.options, result.response))
        except TeacherError as error:
            return Answered(result.key, None, error)

    async def _sent(self, request: HttpRequest) -> HttpResponse:
        """Send what may be repeated until there is a good response. Raises TeacherError."""
        attempt = 1
        while True:
            try:
                return _good(await self._http.send(request, _LONGEST_RESULTS_BYTES))
            except TeacherError as error:
                if error.permanent or error.stop or attempt >= self._max_attempts:
                    raise
                await self._pause(attempt, error)
            attempt += 1

    async def _pause(self, attempt: int, error: TeacherError) -> None:
        await asyncio.sleep(backoff_s(attempt, error.retry_after_s, self._draw))


def _good(response: HttpResponse) -> HttpResponse:
    if not 200 <= response.status < 300:
        raise status_error(response)
    return response


def _may_be(state: BatchState, tag: str, num_requests: int) -> bool:
    """Return whether a batch may be ours: by its tag or, where there is none, by its size."""
    return state.tag == tag if state.tag is not None else state.num_requests == num_requests
