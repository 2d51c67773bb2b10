"""Teacher calls a second from one process, against what concurrency and latency allow.

A scripted server answers after 0.2 s or 2 s. Ours, the raw openai client and Ray's own HTTP stage
take turns; `bespokelabs-curator` and `distilabel` join where `CURATOR_PYTHON` and
`DISTILABEL_PYTHON` name the interpreters of environments that have them.

    python -m benchmarks.teacher_throughput
"""

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import openai

from benchmarks.fast_teacher import fast_teacher
from benchmarks.results import write_result
from cgd_ray.prompts.messages import Message
from cgd_ray.records import Draft, Prompt
from cgd_ray.teacher.asking import ask
from cgd_ray.teacher.completion import TeacherError
from cgd_ray.teacher.credentials import HeaderKey
from cgd_ray.teacher.critique import build_critique_messages
from cgd_ray.teacher.http import HttpLimits, HttpTeacher
from cgd_ray.teacher.wire.base import ChatOptions
from cgd_ray.teacher.wire.openai import OPENAI

_REPEATS = 3
_TIMEOUT_S = 60.0
_MAX_TOKENS = 512
_PROBLEM = "\nA train leaves at 8:15 and arrives at 11:40. How long does it take? Think." * 6
_DRAFT = "From 8:15 to 11:15 are three hours, and 25 minutes more. " * 12


@dataclass(frozen=True, slots=True)
class Load:
    """How much is asked: waves of as many calls at once."""

    latency_s: float
    num_at_once: int
    num_waves: int
    fault_every: int = 0

    @property
    def num_rows(self) -> int:
        """Rows in all."""
        return self.num_at_once * self.num_waves

    @property
    def allowed_per_s(self) -> float:
        """Calls a second that this concurrency allows at this latency."""
        return self.num_at_once / self.latency_s


SHORT = Load(0.2, 120, 30)  # 600 calls a second
LONG = Load(2.0, 1200, 30)
FAULTY = Load(0.2, 120, 30, fault_every=10)

Call = Callable[[list[Message]], Awaitable[str]]


def chats(num_rows: int) -> list[list[Message]]:
    """Return chats of about 2 KB; each names its row in the first line of its problem."""
    return [
        build_critique_messages(
            Prompt(f"p{i}", f"row-{i}-end{_PROBLEM}", "5", None, "bench", "train"),
            Draft(f"p{i}/0", f"p{i}", _DRAFT, "stop", 99, 1),
        )
        for i in range(num_rows)
    ]


async def timed(load: Load, call: Call) -> dict[str, float]:
    """Ask everything; return calls a second, what is lost, and the processor time of a call."""
    gate = asyncio.Semaphore(load.num_at_once)
    asked = chats(load.num_rows)

    async def one(number: int) -> bool:
        async with gate:
            try:
                return (await call(asked[number])).startswith(f"row-{number}-end ")
            except (TeacherError, openai.OpenAIError, ValueError):
                return False

    start, cpu = time.perf_counter(), _cpu_s()
    right = await asyncio.gather(*(one(i) for i in range(load.num_rows)))
    seconds = time.perf_counter() - start
    return {
        "calls_per_s": round(load.num_rows / seconds, 1),
        "of_allowed": round(load.num_rows / seconds / load.allowed_per_s, 3),
        "cpu_ms_per_call": round(1000 * (_cpu_s() - cpu) / load.num_rows, 3),
        "num_lost": right.count(False),
    }


def ours(load: Load, base_url: str) -> dict[str, float]:
    """Measure our client, with retries."""

    async def run() -> dict[str, float]:
        options = ChatOptions(base_url, "fast", 0.0, caches_first_turn=True)
        limits = HttpLimits(_TIMEOUT_S, load.num_at_once, allow_private=True)
        teacher = HttpTeacher(OPENAI, options, HeaderKey("key"), limits)

        async def call(messages: list[Message]) -> str:
            return (await ask(teacher, messages, _MAX_TOKENS, 6)).text

        try:
            return await timed(load, call)
        finally:
            await teacher.close()

    return asyncio.run(run())


def raw_client(load: Load, base_url: str) -> dict[str, float]:
    """Measure the openai client, with its own retries."""

    async def run() -> dict[str, float]:
        # It is so slow that a fifth of the rows says as much.
        fewer = replace(load, num_waves=max(2, load.num_waves // 5))
        async with openai.AsyncOpenAI(base_url=base_url, api_key="key", timeout=_TIMEOUT_S) as c:

            async def call(messages: list[Message]) -> str:
                chat: Any = messages
                found: Any = await c.chat.completions.create(
                    model="fast", messages=chat, max_tokens=_MAX_TOKENS, temperature=0.0
                )
                try:
                    return found.choices[0].message.content
                except (AttributeError, TypeError, IndexError):
                    return ""

            return await timed(fewer, call)

    return asyncio.run(run())


def ray_stage(load: Load, base_url: str) -> dict[str, float]:
    """Measure Ray's stage on one actor, its start apart."""
    import ray.data
    from ray.data.llm import HttpRequestProcessorConfig, build_processor

    config = HttpRequestProcessorConfig(
        url=f"{base_url}/chat/completions", concurrency=1, batch_size=64, max_retries=2
    )
    processor = build_processor(
        config,
        preprocess=lambda row: {"payload": {"model": "fast", "messages": list(row["messages"])}},
        postprocess=lambda row: {"at_s": time.time(), "body": json.dumps(row["http_response"])},
    )
    rows = [{"messages": chat} for chat in chats(load.num_rows)]
    start = time.time()
    found = processor(ray.data.from_items(rows)).take_all()
    # The stage hands rows over in tables of 64: from the first table to the last one.
    times = sorted(row["at_s"] for row in found)
    later = [t for t in times if t > times[0] + 1]
    seconds = (times[-1] - times[0]) if later else time.time() - start
    num = len(later) or len(found)
    return {
        "calls_per_s": round(num / seconds, 1),
        "of_allowed": round(num / seconds / load.allowed_per_s, 3),
        "num_lost": load.num_rows - len(found),
    }


def rival(name: str, load: Load, base_url: str) -> dict[str, Any] | str:
    """Measure another project in its own environment; a text says why that was not possible."""
    python = os.environ.get(f"{name.upper()}_PYTHON")
    if not python:
        return f"not run: {name.upper()}_PYTHON is not set"
    script = Path(__file__).with_name("teacher_rivals.py")
    task = {
        "base_url": base_url,
        "num_at_once": load.num_at_once,
        "chats": chats(load.num_rows),
        "max_tokens": _MAX_TOKENS,
    }
    done = subprocess.run(
        [python, str(script), name],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    last = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode or not last.startswith("{"):
        return f"not run: {(done.stderr.strip().splitlines() or ['no output'])[-1][:300]}"
    found = json.loads(last)
    rate = load.num_rows / found["seconds"]
    return {
        "version": found["version"],
        "calls_per_s": round(rate, 1),
        "of_allowed": round(rate / load.allowed_per_s, 3),
        "num_lost": load.num_rows - found["num_right"],
    }


def ceiling() -> float:
    """Return calls a second of the server itself at no latency, over bare sockets."""
    load = Load(0.001, 64, 200)

    async def run(base_url: str) -> float:
        port = int(base_url.rpartition(":")[2].removesuffix("/v1"))
        body = json.dumps({"messages": chats(1)[0]}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"

        async def one() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(load.num_waves):
                writer.write(head.encode() + body)
                answer = await reader.readuntil(b"\r\n\r\n")
                size = answer.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(size))
            writer.close()

        start = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(load.num_at_once)))
        return load.num_rows / (time.perf_counter() - start)

    with fast_teacher(0.0) as base_url:
        return round(asyncio.run(run(base_url)), 1)


def measured(load: Load, *clients: Callable[[Load, str], Any]) -> list[Any]:
    """Return one figure a client, all against one server."""
    with fast_teacher(load.latency_s, load.fault_every) as base_url:
        return [client(load, base_url) for client in clients]


def spread(runs: Sequence[dict[str, float]], key: str) -> dict[str, float]:
    """Return minimum, median and maximum over repeats."""
    values = [run[key] for run in runs]
    return {"min": min(values), "median": median(values), "max": max(values)}


def main() -> None:
    """Measure, print, write the result file."""
    server = ceiling()
    say("server alone, over bare sockets", {"calls_per_s": server})
    mine: dict[str, list[Any]] = {"0.2 s": [], "2 s": [], "0.2 s, 10 % faults": []}
    others: dict[str, list[Any]] = {"0.2 s": [], "0.2 s, 10 % faults": []}
    for _ in range(_REPEATS):
        for name, load in zip(mine, (SHORT, LONG, FAULTY), strict=True):
            clients = (ours, raw_client) if name in others else (ours,)
            found, *raw = measured(load, *clients)
            mine[name].append(found)
            say(f"{name}: ours", found)
            for other in raw:
                others[name].append(other)
                say(f"{name}: raw openai client", other)
    import ray

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    (stage,) = measured(Load(0.2, 64, 2), ray_stage)
    ray.shutdown()
    say("0.2 s: Ray HttpRequestProcessor", stage)
    rivals = {
        name: measured(SHORT, lambda load, url, name=name: rival(name, load, url))[0]
        for name in ("curator", "distilabel")
    }
    for name, found in rivals.items():
        say(f"0.2 s: {name}", found)
    usual = {name: spread(runs, "of_allowed")["median"] for name, runs in mine.items()}
    passed = (
        usual["0.2 s"] >= 0.95
        and usual["2 s"] >= 0.95
        and spread(mine["0.2 s"], "calls_per_s")["median"] >= 500
        and all(run["num_lost"] == 0 for runs in mine.values() for run in runs)
    )
    rates = [[run["calls_per_s"] for run in runs["0.2 s"]] for runs in (mine, others)]
    path = write_result(
        "teacher-throughput",
        "python -m benchmarks.teacher_throughput",
        {"server_ceiling_calls_per_s": server, "runs": mine},
        {"raw openai client": others, "Ray HttpRequestProcessor": stage, **rivals},
        median(rates[0]) / median(rates[1]),
        {
            "of_allowed": {name: spread(runs, "of_allowed") for name, runs in mine.items()},
            "calls_per_s": {name: spread(runs, "calls_per_s") for name, runs in mine.items()},
            "load_average_1_min": os.getloadavg()[0],
            "num_cpus": os.cpu_count(),
        },
        passed=passed,
    )
    print(path.name)


def say(name: str, value: object) -> None:
    """Print one line at once."""
    print(f"{name}: {value}", file=sys.stdout, flush=True)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
