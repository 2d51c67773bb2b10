"""`teacher.mode = "batch"`: a provider's batch API fills the journal, then rows are taught from it.

The chain of `teacher.chain` runs over all waiting rows with an asker that answers from the journal
alone and collects what it cannot. What was collected is handed in as batches, and when these have
ended the chain runs again, until it asks nothing new: one round for critiques, one for refinements.
So a batch asks exactly what a chat would, under the same keys, and a switch between the two modes
pays for nothing twice.

A question that a batch brought no answer to is asked once a run. The plan that follows makes no
call: the row fails as "not_answered", not for good.
"""

import asyncio
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from cgd_ray.errors import UserError
from cgd_ray.noise import say
from cgd_ray.pipeline.batch_records import BatchPlan, BatchRecords, plan_batch
from cgd_ray.pipeline.context import RunContext
from cgd_ray.pipeline.rows import DraftRows, DraftSource
from cgd_ray.pipeline.spending import journal_folder, spent_usd
from cgd_ray.progress import StageLine
from cgd_ray.prompts.messages import Message
from cgd_ray.records import Record
from cgd_ray.settings import TeacherSettings
from cgd_ray.shards import commit_shard
from cgd_ray.store import map_objects
from cgd_ray.teacher.batch import Answered, BatchClient
from cgd_ray.teacher.chain import teach
from cgd_ray.teacher.completion import Completion, TeacherError, is_usable
from cgd_ray.teacher.journal import (
    Entry,
    Journal,
    Question,
    batch_segments,
    encode_segment,
    read_index,
)
from cgd_ray.teacher.journaled import question_of, unanswered
from cgd_ray.teacher.prices import check_budget, cost_usd, price_of, worst_usd
from cgd_ray.teacher.rows import TeacherRow, read_teacher_rows

_UNITS_AT_ONCE = 64  # of drafts in memory


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How large batches are, how many there are at once and how often they are looked at.

    The sizes are well below what providers take: 50,000 requests in 200 MB (OpenAI, comments of
    `input_file_id` in its Python client 3.54), 100,000 in 256 MB (Anthropic, API reference of the
    creation of message batches). A crash costs the least time and memory with small ones.
    """

    max_requests: int = 10_000
    max_bytes: int = 64 << 20
    max_batches: int = 16
    first_pause_s: float = 5.0
    longest_pause_s: float = 60.0


def fill_journal(
    ctx: RunContext,
    base_url: str,
    source: DraftSource,
    line: StageLine,
    limits: BatchLimits | None = None,
) -> None:
    """Ask a provider's batch API all that the rows of a source still need; wait for the answers.

    Args:
        ctx: of the run.
        base_url: root of the teacher's API.
        source: stored drafts that wait for the teacher.
        line: what to redraw.
        limits: of the batches; None: the usual ones.

    Raises:
        UserError: no batch can succeed, or the money is spent; what was answered is kept.
        KeyboardInterrupt: the batches go on at the provider.
    """
    t = ctx.settings.teacher
    check_budget(t, price_of(t))
    filling = _Filling(ctx, BatchClient(t, base_url), source, line, limits or BatchLimits())
    try:
        asyncio.run(filling.run())
    except KeyboardInterrupt:
        if filling.num_open:
            say(
                f"\n{filling.num_open} batches go on at the provider and are paid: the same "
                "command fetches their answers"
            )
        raise
    except TeacherError as error:
        raise UserError(
            f"stopped ({error.reason}): {error.detail}; what was made is kept, and the same "
            "command goes on"
        ) from error


class _Collector:
    """Answers from the journal, and collects what is not there."""

    def __init__(self, settings: TeacherSettings, *, reuse_refusals: bool) -> None:
        self._settings = settings
        self._reuse_refusals = reuse_refusals
        # Keys of this run's questions: 24 characters each, about 100 MB a million.
        self.asked: set[str] = set()
        self.refused: dict[str, TeacherError] = {}
        self.num_refused = 0  # times that one of these was asked
        self.found: list[Question] = []
        self.journal: Journal

    async def ask(self, messages: list[Message], max_tokens: int, template: str) -> Completion:
        question = question_of(self._settings, messages, max_tokens, template)
        key = question.key
        if key in self.refused:
            self.num_refused += 1
            raise self.refused[key]
        known = await self.journal.find(question)
        if known is not None and (self._reuse_refusals or key in self.asked or is_usable(known)):
            return known
        if key not in self.asked:
            self.asked.add(key)
            self.found.append(question)
        raise unanswered()


@dataclass(slots=True)
class _Open:
    """A batch that is under way."""

    plan: BatchPlan
    ids: list[str]  # those that it may have; one, as a rule
    num_done: int = 0


class _Filling:
    """One run's batches, from the first question to the last answer."""

    def __init__(
        self,
        ctx: RunContext,
        client: BatchClient,
        source: DraftSource,
        line: StageLine,
        limits: BatchLimits,
    ) -> None:
        self._ctx, self._client, self._source, self._line = ctx, client, source, line
        self._limits = limits
        t = ctx.settings.teacher
        self._price = price_of(t)
        self._collector = _Collector(t, reuse_refusals=not ctx.retry_failed)
        self._records = BatchRecords(ctx.store, ctx.folders.refinements)
        self._open: list[_Open] = []
        self._pending: list[Question] = []
        self._lines: list[bytes] = []
        self._pending_bytes, self._pending_usd, self._spent_usd = 0, 0.0, 0.0
        self._pause_s = limits.first_pause_s
        self._num_handed_in = 0

    @property
    def num_open(self) -> int:
        """The batches under way."""
        return len(self._open)

    async def run(self) -> None:
        """Ask rounds of questions until there is none that was not asked."""
        try:
            await self._adopt()
            self._spent_usd = spent_usd(self._ctx) if self._price else 0.0
            again = True
            while again:
                num_before, again = self._num_handed_in, bool(self._open)
                await self._pass_over_rows()
                await self._hand_in()
                while self._open:
                    await self._wait()
                again = again or self._num_handed_in > num_before
            if self._collector.refused:
                await self._commit_refused()
        finally:
            await self._client.close()

    async def _adopt(self) -> None:
        """Take up the batches of a run that was killed."""
        known = self._records.known_ids()
        for plan, ids in self._records.open_plans().values():
            if not ids:
                ids = await self._client.find(plan.name, plan.at_s, len(plan.keys), known)
                if not ids:
                    self._records.drop_plan(plan)
                    continue
                self._records.put_ids(plan, ids)
                known.update(ids)
            self._collector.asked.update(plan.keys)
            self._open.append(_Open(plan, ids))
        await self._look()  # what has ended is money spent, no longer money at risk

    async def _pass_over_rows(self) -> None:
        """Teach all rows from the journal, and ask what it lacks."""
        collector, ctx = self._collector, self._ctx
        self._read_journal()
        for rows in _waiting_rows(self._source):
            for row in rows:
                await teach(collector, row, ctx.settings.teacher)
            found, collector.found = collector.found, []
            for question in found:
                await self._add(question)
            self._show()

    async def _commit_refused(self) -> None:
        """Commit the failures of rows whose requests were refused for good: no journal has them."""
        collector, ctx = self._collector, self._ctx
        self._read_journal()
        for rows in _waiting_rows(self._source):
            failed: list[Record] = []
            for row in rows:
                num_refused = collector.num_refused
                made = await teach(collector, row, ctx.settings.teacher)
                if collector.num_refused > num_refused:
                    failed += [*made.records, *made.failures]
            if failed:
                commit_shard(ctx.store, ctx.folders.refinements, failed)

    def _read_journal(self) -> None:
        store = self._ctx.store
        journal = Journal(store, journal_folder(self._ctx), read_index(store))
        self._collector.journal = journal

    async def _add(self, question: Question) -> None:
        """Put a question into the next batch; hand that in when it is full."""
        messages = question.messages
        worst = worst_usd(self._price, messages, question.max_tokens) if self._price else 0.0
        line = self._client.line(question)
        limits = self._limits
        too_long = self._pending_bytes + len(line) > limits.max_bytes
        if self._pending and (too_long or len(self._pending) >= limits.max_requests):
            await self._hand_in()
        while self._over_budget(worst):
            if self._pending:
                await self._hand_in()
            elif self._open:
                await self._wait()  # what it really cost is less than the worst
            else:
                raise self._budget_spent(worst)
        self._pending.append(question)
        self._lines.append(line)
        self._pending_bytes += len(line)
        self._pending_usd += worst

    def _over_budget(self, worst: float) -> bool:
        most = self._ctx.settings.teacher.max_usd
        risk = self._pending_usd + sum(batch.plan.worst_usd for batch in self._open)
        return most is not None and self._spent_usd + risk + worst > most

    def _budget_spent(self, worst: float) -> TeacherError:
        most = self._ctx.settings.teacher.max_usd
        return TeacherError(
            "budget",
            f"spent ${self._spent_usd:.4g} of teacher.max_usd=${most:.4g}, and the next request of "
            f"a batch may cost ${worst:.2g}: raise teacher.max_usd to go on",
            stop=True,
        )

    async def _hand_in(self) -> None:
        """Hand the pending questions in as a batch."""
        while len(self._open) >= self._limits.max_batches:
            await self._wait()
        if not self._pending:
            return
        plan = plan_batch(uuid.uuid4().hex[:12], time.time(), self._pending_usd, self._pending)
        lines, self._lines, self._pending = self._lines, [], []
        self._pending_bytes, self._pending_usd = 0, 0.0
        self._records.put_plan(plan)
        known = self._records.known_ids()
        ids = await self._client.create(lines, plan.name, known)
        self._records.put_ids(plan, ids)
        self._open.append(_Open(plan, ids))
        self._num_handed_in += 1
        self._pause_s = self._limits.first_pause_s
        self._show()

    async def _wait(self) -> None:
        """Wait a little, and longer each time, until some batch has ended."""
        while self._open:
            self._show()
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(self._limits.longest_pause_s, self._pause_s * 1.5)
            if await self._look():
                self._pause_s = self._limits.first_pause_s
                return

    async def _look(self) -> bool:
        """Look at all batches under way; take the answers of those that ended."""
        ended = False
        for batch in list(self._open):
            states = [await self._client.look(batch_id) for batch_id in batch.ids]
            batch.num_done = max(state.num_done for state in states)
            if any(state.status == "running" for state in states):
                continue
            answers: list[Answered] = []
            for state in states:
                if state.status == "ended":
                    answers += await self._client.results(state)
            details = "; ".join(state.detail for state in states if state.detail)
            self._take(batch, answers, details, tagged=states[0].tag is not None)
            ended = True
        return ended

    def _take(
        self, batch: _Open, answers: Sequence[Answered], details: str, *, tagged: bool
    ) -> None:
        """Keep a batch's answers, then count it as over."""
        plan, parameters = batch.plan, batch.plan.parameters()
        found = {a.key: a for a in answers if a.key in parameters}
        kept = [
            Entry(key, parameters[key], answer)
            for key in plan.keys
            if key in found and (answer := found[key].answer) is not None
        ]
        self._keep(plan, kept)
        errors = {a.key: a.error for a in found.values() if a.error is not None}
        self._collector.refused.update({k: e for k, e in errors.items() if e.permanent})
        if not found and not tagged:  # another's batch of the same size: ours was never made
            self._collector.asked.difference_update(plan.keys)
        summary = {"answers": len(kept), "errors": len(errors), "detail": details}
        self._records.put_done(plan, {**summary, "asked": len(plan.keys)})
        self._open.remove(batch)
        if len(kept) < len(plan.keys):
            say(
                f"batch {batch.ids[0]}: {len(kept)} of {len(plan.keys)} answered {details}".rstrip()
            )
        for error in errors.values():
            if error.stop:
                raise error

    def _keep(self, plan: BatchPlan, entries: Sequence[Entry]) -> None:
        store = self._ctx.store
        segments = batch_segments(journal_folder(self._ctx), plan.name, plan.at_s, entries)
        data = {key: encode_segment(part) for key, part in segments}
        for _ in map_objects(lambda key: store.put(key, data[key]), list(data)):
            pass
        if self._price:
            self._spent_usd += sum(cost_usd(self._price, e.answer) for e in entries)

    def _show(self) -> None:
        asked = sum(len(batch.plan.keys) for batch in self._open)
        done = sum(batch.num_done for batch in self._open)
        note = f"{len(self._open)} batches under way, {done:,} of {asked:,} requests done"
        if self._price:
            note += f"  ${self._spent_usd:.2f}"
        self._line.update(0, 0, len(self._source.done), note)


def _waiting_rows(source: DraftSource) -> Iterator[list[TeacherRow]]:
    """Yield the waiting rows of a source, some units at a time."""
    read = DraftRows(source)
    for start in range(0, len(source.units), _UNITS_AT_ONCE):
        numbers = range(start, min(start + _UNITS_AT_ONCE, len(source.units)))
        yield read_teacher_rows(read(pa.table({"id": list(numbers)})))
