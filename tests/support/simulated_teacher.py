"""Teachers in virtual time, and clients of one governor that ask them."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from cgd_ray.prompts.messages import Message
from cgd_ray.teacher.completion import Completion, TeacherError
from cgd_ray.teacher.governed import governed_ask
from cgd_ray.teacher.governor import Governor, Grant, Limits, Report
from cgd_ray.teacher.permits import Permits
from cgd_ray.teacher.prices import Price
from tests.support.records import completion

MESSAGES: list[Message] = [{"role": "user", "content": "x" * 40}]
EXCHANGE_S = 0.001


@dataclass
class Simulated:
    """A teacher that answers after a wait of its own; it counts what it is asked."""

    wait: Callable[[], Awaitable[None]]
    answer: Completion
    num_calls: int = 0

    async def complete(self, messages: list[Message], max_tokens: int) -> Completion:
        self.num_calls += 1
        await self.wait()
        return self.answer


def steady(latency_s: float) -> Simulated:
    """As many calls at once as one likes, each with one latency."""
    return Simulated(lambda: asyncio.sleep(latency_s), completion())


def uneven(latency_s: float, seed: int) -> Simulated:
    """As many calls at once as one likes, with exponential latencies of this mean."""
    draw = random.Random(seed)
    return Simulated(lambda: asyncio.sleep(draw.expovariate(1 / latency_s)), completion())


def queueing(num_workers: int, service_s: float, seed: int) -> Simulated:
    """A fixed number of workers, and a queue without end in front of them."""
    workers, draw = asyncio.Semaphore(num_workers), random.Random(seed)

    async def wait() -> None:
        async with workers:
            await asyncio.sleep(service_s * draw.uniform(0.5, 1.5))

    return Simulated(wait, completion())


def batching(latency_s: float, num_doubling: int) -> Simulated:
    """All calls at once in one batch, whose every step takes longer the larger it is (vLLM)."""
    batch = [0]

    async def wait() -> None:
        batch[0] += 1
        for _ in range(5):
            await asyncio.sleep(latency_s / 5 * (1 + batch[0] / num_doubling))
        batch[0] -= 1

    return Simulated(wait, completion())


@dataclass(frozen=True)
class Outcome:
    """What became of the calls of a simulated run."""

    answers: Sequence[Completion]
    errors: Sequence[TeacherError]
    took_s: float
    governor: Governor
    max_in_flight: Sequence[int]  # the learnt limit, each second


async def ask_many(
    teacher: Simulated,
    limits: Limits,
    num_calls: int,
    num_clients: int = 2,
    price: Price | None = None,
    max_attempts: int = 3,
) -> Outcome:
    """Ask through several clients of one governor until all calls have ended."""
    loop = asyncio.get_running_loop()
    governor = Governor(limits)

    async def exchange(report: Report) -> Grant:
        await asyncio.sleep(EXCHANGE_S)
        return governor.exchange(report, loop.time())

    each = -(-limits.max_in_flight // num_clients)
    clients = [Permits(exchange, each, price, loop.time) for _ in range(num_clients)]
    gates = [asyncio.Semaphore(2 * each) for _ in clients]
    learnt: list[int] = []

    async def one(index: int) -> Completion | TeacherError:
        client = index % num_clients
        async with gates[client]:
            try:
                return await governed_ask(teacher, clients[client], MESSAGES, 10, max_attempts)
            except TeacherError as error:
                return error

    async def watch() -> None:
        while True:
            learnt.append(governor.usage(loop.time()).max_in_flight)
            await asyncio.sleep(1)

    watching = asyncio.create_task(watch())
    start_s = loop.time()
    ended = await asyncio.gather(*(one(index) for index in range(num_calls)))
    watching.cancel()
    answers = [x for x in ended if isinstance(x, Completion)]
    errors = [x for x in ended if isinstance(x, TeacherError)]
    return Outcome(answers, errors, loop.time() - start_s, governor, learnt)
