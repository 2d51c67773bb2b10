"""How well a teacher's own limits are kept, over real HTTP and real minutes (reliability check 7).

Servers that allow so many requests or tokens a minute (fixed and sliding windows), one that only
queues, and the cost of a permit itself. `python -m benchmarks.teacher_limits`, about five minutes.
"""

import asyncio
import time

from benchmarks.results import write_result
from cgd_ray.settings import TeacherSettings
from cgd_ray.teacher.backend import open_backend
from cgd_ray.teacher.governed import governed_ask
from cgd_ray.teacher.governor import Governor, Grant, Limits, Report
from cgd_ray.teacher.permits import Permits
from tests.support.limited_teacher import LimitedTeacher, ServerLimits, busiest_window
from tests.support.records import completion
from tests.support.simulated_teacher import MESSAGES, Simulated

NUM_CLIENTS, EACH = 4, 16
MINUTE_S = 60.0
NUM_MINUTES = 3
NUM_REQUESTS = 1200
TOKENS_A_CALL = 50
MOST_REFUSED, LEAST_REACHED = 0.01, 0.95
PERMIT_CALLS = 20_000


async def asked(server: LimitedTeacher, limits: Limits, length_s: float) -> Governor:
    """Ask through the clients of one governor without a rest."""
    governor = Governor(limits)
    settings = TeacherSettings(
        base_url=server.base_url, model="limited-1", allow_private_address=True, max_in_flight=EACH
    )
    end_s = time.monotonic() + length_s

    async def exchange(report: Report) -> Grant:
        return governor.exchange(report)

    async def client() -> None:
        teacher = open_backend(settings, server.base_url)
        permits = Permits(exchange, EACH, None)

        async def row() -> None:
            while time.monotonic() < end_s:
                await governed_ask(teacher, permits, MESSAGES, 20, 6)

        await asyncio.gather(*(row() for _ in range(EACH)))
        await teacher.close()

    await asyncio.gather(*(client() for _ in range(NUM_CLIENTS)))
    return governor


async def rate_limited(window: str, kind: str) -> dict[str, object]:
    """Return how a server with limits was used."""
    tokens = NUM_REQUESTS * TOKENS_A_CALL if kind == "tokens" else None
    requests = NUM_REQUESTS if kind == "requests" else None
    server = LimitedTeacher(
        ServerLimits(window=window, minute_s=MINUTE_S, max_requests=requests, max_tokens=tokens)
    )
    limits = Limits(requests, tokens, max_in_flight=NUM_CLIENTS * EACH, minute_s=MINUTE_S)
    async with server.serving():
        await asked(server, limits, NUM_MINUTES * MINUTE_S)
    times = server.accepted_s
    allowed = NUM_REQUESTS * (times[-1] - times[0]) / MINUTE_S
    return {
        "limit": f"{kind}, {window} window",
        "accepted": len(times),
        "refused_429": len(server.refused_s),
        "refused_share": round(len(server.refused_s) / len(times), 5),
        "reached_share": round(len(times) / allowed, 4),
        "busiest_minute_share": round(busiest_window(times, MINUTE_S) / NUM_REQUESTS, 4),
    }


async def queueing(num_workers: int, service_s: float, length_s: float) -> dict[str, object]:
    """Return how a server that only queues was used, against itself with all calls at once."""
    server = LimitedTeacher(ServerLimits(num_workers=num_workers, latency_s=service_s))
    async with server.serving():
        governor = await asked(server, Limits(max_in_flight=NUM_CLIENTS * EACH), length_s)
    later = [at_s for at_s in server.accepted_s if at_s > server.accepted_s[0] + length_s / 2]
    rate = (len(later) - 1) / (later[-1] - later[0])
    return {
        "num_workers": num_workers,
        "cap": NUM_CLIENTS * EACH,
        "learnt_in_flight": governor.usage().max_in_flight,
        "reached_share": round(rate * service_s / num_workers, 4),
    }


async def permits_a_second() -> float:
    """Return the calls a second that one process gets permits for, of a teacher that is instant."""
    governor = Governor(Limits(10**9, 10**12, max_in_flight=256, max_usd=1e9))
    teacher = Simulated(lambda: asyncio.sleep(0), completion())

    async def exchange(report: Report) -> Grant:
        return governor.exchange(report)

    permits = Permits(exchange, 256, None)

    async def row() -> None:
        for _ in range(PERMIT_CALLS // 256):
            await governed_ask(teacher, permits, MESSAGES, 20, 1)

    start_s = time.perf_counter()
    await asyncio.gather(*(row() for _ in range(256)))
    return teacher.num_calls / (time.perf_counter() - start_s)


def main() -> None:
    """Measure and write the result file."""
    cases = [(window, kind) for kind in ("requests", "tokens") for window in ("fixed", "sliding")]

    async def all_cases() -> list[dict[str, object]]:
        return await asyncio.gather(*(rate_limited(window, kind) for window, kind in cases))

    limited = asyncio.run(all_cases())
    queue = asyncio.run(queueing(8, 0.25, 60.0))
    rates = [asyncio.run(permits_a_second()) for _ in range(5)]
    for row in (*limited, queue):
        print(row)
    print("permits a second:", [round(rate) for rate in rates])
    reached = [float(str(row["reached_share"])) for row in limited]
    refused = [float(str(row["refused_share"])) for row in limited]
    path = write_result(
        "teacher-limits",
        "python -m benchmarks.teacher_limits",
        ours={"rate_limited": limited, "queueing": queue, "permits_per_s": round(min(rates))},
        baseline={"requests_per_minute": NUM_REQUESTS, "needed_permits_per_s": 500},
        ratio=min(reached),
        spread={"reached_share": [min(reached), max(reached)], "permits_per_s": sorted(rates)},
        passed=max(refused) < MOST_REFUSED and min(reached) >= LEAST_REACHED and min(rates) > 500,
    )
    print(path)


if __name__ == "__main__":
    main()
