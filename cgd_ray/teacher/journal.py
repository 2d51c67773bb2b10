"""Every answer that a teacher was paid for, durable before it is used.

A writer keeps one open segment, an object that it replaces with a longer one at each flush; answers
that arrive while a flush is under way share the next one. A segment's first line names its answers
and what they cost, so that an index of a journal reads the heads alone; the answers follow it.

An answer is found by a hash of all that asked for it (issue: Generation, "Journal and commits"), so
a run that asks the same again, whatever its other settings, pays nothing.
"""

import asyncio
import hashlib
import json
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from cgd_ray.errors import UserError
from cgd_ray.keys import KeyIndex, key_index
from cgd_ray.prompts.messages import Message
from cgd_ray.store import Store, StoreError, map_objects
from cgd_ray.teacher.completion import Completion

JOURNAL = "journal"
_SEGMENT_ANSWERS = 64  # after so many a writer begins a new segment
_HEAD_BYTES = 4 << 10  # holds the first line of a full segment
_REMEMBERED = 4096  # of its own answers that a writer holds in memory
_REMEMBERED_SEGMENTS = 16  # of others' segments


@dataclass(frozen=True, slots=True)
class Question:
    """All that decides a teacher's answer."""

    provider: str  # wire format, such as "openai"
    model: str
    temperature: float | None  # None: the provider's default
    max_tokens: int
    template: str  # version of the words that ask
    messages: tuple[Message, ...]

    @property
    def key(self) -> str:
        """24 hex digits that change when anything does."""
        text = json.dumps(asdict(self), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]

    @property
    def parameters(self) -> dict[str, Any]:
        """What is kept beside the answer, to be compared when it is found again."""
        named = asdict(self)
        named["messages"] = len(self.messages)
        return named


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Calls and tokens, as the teacher's API counts them."""

    num_calls: int = 0
    num_input_tokens: int = 0
    num_cached_tokens: int = 0
    num_output_tokens: int = 0

    def __add__(self, other: "TokenUsage") -> "TokenUsage":
        """Add two usages up."""
        return TokenUsage(
            self.num_calls + other.num_calls,
            self.num_input_tokens + other.num_input_tokens,
            self.num_cached_tokens + other.num_cached_tokens,
            self.num_output_tokens + other.num_output_tokens,
        )


def usage_of(answer: Completion) -> TokenUsage:
    """Return what one answer used."""
    return TokenUsage(
        1, answer.num_input_tokens, answer.num_cached_tokens, answer.num_output_tokens
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """A kept answer."""

    key: str
    parameters: dict[str, Any]
    answer: Completion


@dataclass(frozen=True, slots=True)
class JournalIndex:
    """Where each kept answer is."""

    segments: tuple[str, ...]  # object keys
    answers: KeyIndex  # question key -> place in `segments`


def encode_segment(entries: Sequence[Entry]) -> bytes:
    """Return a segment: a line of JSON about its answers, then the answers, compressed."""
    body = json.dumps([[e.parameters, asdict(e.answer)] for e in entries]).encode()
    usage = sum((usage_of(e.answer) for e in entries), TokenUsage())
    head = {"keys": [e.key for e in entries], "usage": asdict(usage), "bytes": len(body)}
    packed: bytes = pa.compress(body, codec="zstd", asbytes=True)
    return json.dumps(head, separators=(",", ":")).encode() + b"\n" + packed


def batch_segments(
    folder: str, name: str, at_s: float, entries: Sequence[Entry]
) -> list[tuple[str, Sequence[Entry]]]:
    """Return the segments for answers that came together: their keys, and what is in each.

    The same answers make the same segments, so that keeping them twice keeps them once.

    Args:
        folder: of the run's own segments.
        name: of the answers, which no others have.
        at_s: Unix time when they were asked for.
        entries: the answers, in the order in which they will be looked for.
    """
    made = f"{folder}/{round(at_s * 1000):013d}-{name}"
    starts = range(0, len(entries), _SEGMENT_ANSWERS)
    return [
        (f"{made}-{number:05d}.segment", entries[start : start + _SEGMENT_ANSWERS])
        for number, start in enumerate(starts)
    ]


def decode_segment(data: bytes) -> dict[str, Entry]:
    """Return a segment's entries by key."""
    line, _, packed = data.partition(b"\n")
    head = json.loads(line)
    body = pa.decompress(packed, head["bytes"], codec="zstd", asbytes=True)
    return {
        key: Entry(key, parameters, Completion(**answer))
        for key, (parameters, answer) in zip(head["keys"], json.loads(body), strict=True)
    }


def read_index(store: Store, folder: str = JOURNAL, known: Sequence[str] = ()) -> JournalIndex:
    """Return where every kept answer is; of several to one question, the newest.

    Args:
        store: where the journal is.
        folder: of the journal, or of one run's part.
        known: segments to leave out.
    """
    left_out = frozenset(known)
    segments = [e.key for e in store.list(f"{folder}/") if e.key not in left_out]
    segments.sort(key=lambda key: key.rpartition("/")[2], reverse=True)
    pairs = (
        (key, number) for number, head in enumerate(_heads(store, segments)) for key in head["keys"]
    )
    return JournalIndex(tuple(segments), key_index(pairs))


def read_usage(store: Store, folder: str) -> TokenUsage:
    """Return what the answers kept in a folder used."""
    segments = [entry.key for entry in store.list(f"{folder}/")]
    return sum((TokenUsage(**head["usage"]) for head in _heads(store, segments)), TokenUsage())


def _heads(store: Store, segments: Sequence[str]) -> Iterator[dict[str, Any]]:
    def head(key: str) -> dict[str, Any]:
        data = store.get_head(key, _HEAD_BYTES)
        line = data if b"\n" in data else store.get(key)
        return json.loads(line.partition(b"\n")[0])

    return map_objects(head, segments)


class Journal:
    """One writer's view of the journal: finds what anyone kept before it, keeps what it gets.

    It belongs to the event loop that uses it.

    Args:
        store: where the journal is.
        folder: of this run's own segments, below `JOURNAL`.
        index: what was there when the stage began; what came to the folder since is read too.
    """

    def __init__(self, store: Store, folder: str, index: JournalIndex) -> None:
        self._store = store
        self._folder = folder
        # This run's own part once more: a worker that replaces a dead one finds what that one paid.
        self._indexes = (read_index(store, folder, index.segments), index)
        self._open: list[Entry] = []
        self._name = self._new_name()
        self._waiting: list[tuple[Entry, asyncio.Future[None]]] = []
        self._flusher: asyncio.Task[None] | None = None
        self._own: OrderedDict[str, Entry] = OrderedDict()
        self._segments: OrderedDict[str, dict[str, Entry]] = OrderedDict()

    async def find(self, question: Question) -> Completion | None:
        """Return the kept answer to a question, if there is one.

        Raises:
            UserError: the entry under its key belongs to another question.
        """
        key = question.key
        entry = self._own.get(key)
        if entry is None:
            segment = self._segment_of(key)
            if segment is None:
                return None
            entry = (await self._segment(segment))[key]
        if entry.parameters != question.parameters:
            raise UserError(
                f"the journal's answer {key} was given under other parameters "
                f"({entry.parameters}, not {question.parameters}): move {JOURNAL}/ away"
            )
        return entry.answer

    async def keep(self, question: Question, answer: Completion) -> None:
        """Make an answer durable; it is when this returns."""
        entry = Entry(question.key, question.parameters, answer)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, done))
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush())
        await done

    async def _flush(self) -> None:
        """Write until nobody waits: answers that come during one write share the next."""
        while self._waiting:
            room = _SEGMENT_ANSWERS - len(self._open)
            taken, self._waiting = self._waiting[:room], self._waiting[room:]
            self._open += [entry for entry, _ in taken]
            data = encode_segment(self._open)
            error = None
            try:
                await asyncio.to_thread(self._store.put, self._name, data)
            except StoreError as failed:
                error = failed
            for entry, done in taken:
                _remember(self._own, entry.key, entry, _REMEMBERED)
                if not done.cancelled():
                    done.set_exception(error) if error else done.set_result(None)
            if len(self._open) >= _SEGMENT_ANSWERS:
                self._open, self._name = [], self._new_name()
        self._flusher = None

    def _segment_of(self, key: str) -> str | None:
        for index in self._indexes:
            (number,) = index.answers.find([key])
            if number is not None:
                return index.segments[number]
        return None

    async def _segment(self, key: str) -> dict[str, Entry]:
        if key not in self._segments:
            data = await asyncio.to_thread(self._store.get, key)
            _remember(self._segments, key, decode_segment(data), _REMEMBERED_SEGMENTS)
        return self._segments[key]

    def _new_name(self) -> str:
        # The time puts newer answers before older ones; uniqueness is the random part's.
        made = f"{time.time_ns() // 1_000_000:013d}-{uuid.uuid4().hex[:12]}"
        return f"{self._folder}/{made}.segment"


def _remember(memory: OrderedDict[str, Any], key: str, value: object, limit: int) -> None:
    memory[key] = value
    while len(memory) > limit:
        memory.popitem(last=False)
