"""The answer journal: durable before use, found by what was asked, and no other."""

import asyncio
import threading
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from cgd_ray.errors import UserError
from cgd_ray.store import LocalStore, StoreError
from cgd_ray.teacher.journal import (
    JOURNAL,
    Journal,
    JournalIndex,
    Question,
    TokenUsage,
    decode_segment,
    read_index,
    read_usage,
)
from tests.support.records import completion

ASKED = Question("openai", "m", 0.0, 64, "critique/v1", ({"role": "user", "content": "1 + 1"},))
OTHER = {
    "provider": "anthropic",
    "model": "n",
    "temperature": 0.5,
    "max_tokens": 65,
    "template": "critique/v2",
    "messages": ({"role": "user", "content": "1 + 2"},),
}


class SlowStore(LocalStore):
    """Counts puts and holds each until it is let go; fails while it is told to."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.gate = threading.Event()
        self.gate.set()
        self.puts = 0
        self.broken = False

    def put(self, key: str, data: bytes) -> None:
        self.gate.wait(10)
        if self.broken:
            raise StoreError("away")
        self.puts += 1
        super().put(key, data)


@pytest.fixture
def store(tmp_path: Path) -> SlowStore:
    return SlowStore(str(tmp_path))


def journal(store: LocalStore, folder: str = "run") -> Journal:
    return Journal(store, f"{JOURNAL}/{folder}", read_index(store))


def nth(number: int) -> Question:
    return replace(ASKED, messages=({"role": "user", "content": f"{number}"},))


def test_every_part_of_a_question_has_a_say_in_its_key() -> None:
    assert set(OTHER) == {f.name for f in fields(Question)}
    keys = {replace(ASKED, **{name: value}).key for name, value in OTHER.items()}
    assert len(keys | {ASKED.key}) == len(OTHER) + 1
    assert ASKED.key == Question(**asdict(ASKED)).key


def test_a_kept_answer_is_found_by_the_next_writer(store: SlowStore) -> None:
    answer = completion("caf\u00e9 \U0001f600")

    async def first() -> None:
        await journal(store).keep(ASKED, answer)

    async def second() -> None:
        later = journal(store, "another run")
        assert await later.find(ASKED) == answer
        assert await later.find(nth(7)) is None

    asyncio.run(first())
    asyncio.run(second())


def test_an_answer_is_durable_when_keep_returns_and_not_before(store: SlowStore) -> None:
    async def run() -> None:
        mine = journal(store)
        store.gate.clear()
        kept = asyncio.create_task(mine.keep(ASKED, completion()))
        await asyncio.sleep(0.05)
        assert not kept.done()
        assert read_index(store).segments == ()
        store.gate.set()
        await kept
        assert ASKED.key in read_index(store).answers

    asyncio.run(run())


def test_answers_that_come_during_a_write_share_the_next(store: SlowStore) -> None:
    async def run() -> None:
        mine = journal(store)
        store.gate.clear()
        kept = [asyncio.create_task(mine.keep(nth(i), completion(f"{i}"))) for i in range(200)]
        await asyncio.sleep(0.05)
        store.gate.set()
        await asyncio.gather(*kept)
        assert store.puts <= 5  # one of one answer, then full segments of 64
        index = read_index(store)
        assert len(index.answers) == 200
        for i in range(200):
            assert await journal(store).find(nth(i)) == completion(f"{i}")

    asyncio.run(run())


def test_a_failed_write_is_told_and_the_answers_go_into_the_next(store: SlowStore) -> None:
    async def run() -> None:
        mine = journal(store)
        store.broken = True
        with pytest.raises(StoreError):
            await mine.keep(nth(1), completion("paid"))
        store.broken = False
        await mine.keep(nth(2), completion("paid too"))
        index = read_index(store)
        assert nth(1).key in index.answers
        assert nth(2).key in index.answers

    asyncio.run(run())


def test_a_worker_that_replaces_another_finds_what_it_paid(store: SlowStore) -> None:
    at_the_start = read_index(store)

    async def run() -> None:
        await Journal(store, f"{JOURNAL}/run", at_the_start).keep(ASKED, completion("paid"))
        successor = Journal(store, f"{JOURNAL}/run", at_the_start)
        assert await successor.find(ASKED) == completion("paid")

    asyncio.run(run())


def test_the_newest_answer_to_a_question_wins(store: SlowStore) -> None:
    async def run() -> None:
        await journal(store, "a").keep(ASKED, completion("old"))
        await asyncio.sleep(0.002)  # names carry milliseconds
        await journal(store, "b").keep(ASKED, completion("new"))
        found = await journal(store).find(ASKED)
        assert found is not None
        assert found.text == "new"

    asyncio.run(run())


def test_usage_adds_up_by_folder_from_the_heads_alone(store: SlowStore) -> None:
    async def run() -> None:
        for folder, count in (("one", 130), ("two", 3)):
            mine = journal(store, folder)
            await asyncio.gather(*(mine.keep(nth(i), completion()) for i in range(count)))

    asyncio.run(run())
    assert read_usage(store, f"{JOURNAL}/one") == TokenUsage(130, 1300, 520, 650)
    assert read_usage(store, JOURNAL) == TokenUsage(133, 1330, 532, 665)
    assert read_usage(store, "nowhere") == TokenUsage()


def test_an_entry_of_another_question_is_an_error(store: SlowStore) -> None:
    async def run() -> None:
        await journal(store).keep(ASKED, completion())
        (entry,) = store.list(JOURNAL)
        forged = decode_segment(store.get(entry.key))[ASKED.key]
        index = read_index(store)
        mine = Journal(store, JOURNAL, JournalIndex(index.segments, index.answers))
        mine._own[ASKED.key] = replace(forged, parameters={**forged.parameters, "model": "x"})
        with pytest.raises(UserError, match="given under other parameters"):
            await mine.find(ASKED)

    asyncio.run(run())
