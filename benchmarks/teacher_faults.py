"""What our teacher client, Ray's HTTP stage and the raw openai client make of each fault.

Each fault is played by a real HTTP server at every call about one row. A verdict is right if the
row is asked again (or left for later) where that helps, given up where it does not, the stage
stopped where no row can succeed, and the server's `Retry-After` kept.

    python -m benchmarks.teacher_faults
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import openai
import ray
import ray.data
import ray.exceptions
from ray.data.llm import HttpRequestProcessorConfig, build_processor

from benchmarks.results import write_result
from cgd_ray.prompts.messages import Message, quoted
from cgd_ray.teacher.asking import ask
from cgd_ray.teacher.completion import TeacherError, rejected_completion
from cgd_ray.teacher.credentials import HeaderKey
from cgd_ray.teacher.http import HttpLimits, HttpTeacher
from cgd_ray.teacher.wire.base import ChatOptions
from cgd_ray.teacher.wire.openai import OPENAI
from tests.support.scripted_teacher import Reply, ScriptedTeacher, scripted_teacher
from tests.support.teacher_faults import FAULTS, Fault

_TIMEOUT_S = 2.0  # of one call
_PATIENCE_S = 15.0  # who has not returned by then is waiting as it was asked to
_ATTEMPTS = 3
_REDIRECT = "307 to another host"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a client made of a fault."""

    word: str  # "retry", "fail", "stop", "answer", or what else happened
    num_calls: int
    first_wait_s: float | None

    def right(self, fault: Fault) -> bool:
        """Return whether that is what the fault means, and the server's wish was kept."""
        kept = self.first_wait_s is None or self.first_wait_s >= fault.wish_s
        waits = self.word == "waiting" and fault.wish_s > _PATIENCE_S
        return (self.word == fault.meaning or waits) and kept


def chat_of(name: str) -> list[Message]:
    """Return a chat that the scripted server takes as one about `name`."""
    return [{"role": "user", "content": quoted("problem", name)}]


async def ours(base_url: str, name: str) -> str:
    """Ask through our client and retries."""
    options = ChatOptions(base_url, "m", 0.0, caches_first_turn=True)
    limits = HttpLimits(_TIMEOUT_S, 8, allow_private=True)
    teacher = HttpTeacher(OPENAI, options, HeaderKey("key"), limits)
    try:
        found = await ask(teacher, chat_of(name), 64, _ATTEMPTS)
    except TeacherError as error:
        return "stop" if error.stop else "fail" if error.permanent else "retry"
    finally:
        await teacher.close()
    return "fail" if rejected_completion(name, "critiques", found) else "answer"


async def raw_client(base_url: str, name: str) -> str:
    """Ask through the openai client as it comes; only its time limit is ours."""
    async with openai.AsyncOpenAI(base_url=base_url, api_key="key", timeout=_TIMEOUT_S) as client:
        messages: Any = chat_of(name)
        try:
            await client.chat.completions.create(model="m", messages=messages)
        except (openai.AuthenticationError, openai.PermissionDeniedError):
            return "stop"
        except (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError):
            return "retry"
        except (openai.OpenAIError, ValueError) as error:
            return f"{type(error).__name__}, not an error of the API"
    return "answer"


def ray_stage(base_url: str, name: str) -> str:
    """Ask through Ray's own stage, with a good row beside; its time limit is ours."""
    config = HttpRequestProcessorConfig(
        url=f"{base_url}/chat/completions",
        headers={"Authorization": "Bearer key"},
        max_retries=_ATTEMPTS - 1,
        session_factory=_session,
        batch_size=2,
        concurrency=1,
    )
    processor = build_processor(
        config,
        preprocess=lambda row: {"payload": {"model": "m", "messages": chat_of(row["name"])}},
        postprocess=lambda row: {"name": row["name"], "body": json.dumps(row["http_response"])},
    )
    try:
        rows = processor(ray.data.from_items([{"name": "good"}, {"name": name}])).take_all()
    except (ray.exceptions.RayError, RuntimeError):
        return "the job dies, its good rows with it"
    return "answer" if len(rows) == 2 else f"{2 - len(rows)} rows vanish"


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S))


async def patiently(word: Awaitable[str]) -> str:
    """Return a client's word, or that it still waits."""
    try:
        return await asyncio.wait_for(word, _PATIENCE_S)
    except TimeoutError:
        return "waiting"


def verdicts(call: Callable[[str, str], Awaitable[str]]) -> dict[str, Verdict]:
    """Return what a client makes of every fault, all asked at once."""
    with scripted_teacher(scripts()) as server:

        async def run() -> list[str]:
            return await asyncio.gather(*(patiently(call(server.base_url, n)) for n in FAULTS))

        words = asyncio.run(run())
        return {n: verdict(server, n, word) for n, word in zip(FAULTS, words, strict=True)}


def ray_verdicts() -> dict[str, Verdict]:
    """Return what Ray's stage makes of every fault, a job each."""
    with scripted_teacher(scripts()) as server:
        return {n: verdict(server, n, ray_stage(server.base_url, n)) for n in FAULTS}


def verdict(server: ScriptedTeacher, name: str, word: str) -> Verdict:
    """Return a client's word with what the server saw."""
    times = [request.at_s for request in server.asked(name)]
    return Verdict(word, len(times), times[1] - times[0] if len(times) > 1 else None)


def scripts() -> dict[str, list[Reply]]:
    """Return every fault, for more calls than anyone makes."""
    return {name: [fault.reply] * 50 for name, fault in FAULTS.items()}


def num_leaked(call: Callable[[str, str], object]) -> int:
    """Return how many prompts arrive at another host when the teacher redirects there."""
    with scripted_teacher({}) as decoy:
        away = Reply(b"", 307, {"Location": f"{decoy.base_url}/chat/completions"})
        with scripted_teacher({_REDIRECT: [away] * 50}) as server:
            call(server.base_url, _REDIRECT)
        return len(decoy.asked(_REDIRECT))


def summary(found: dict[str, Verdict], leaked: int) -> dict[str, Any]:
    """Return the figures of one client for the result file."""
    wrong = [name for name, v in found.items() if not v.right(FAULTS[name])]
    faults = {
        name: {
            "verdict": v.word,
            "right": v.right(FAULTS[name]),
            "num_calls": v.num_calls,
            "first_wait_s": v.first_wait_s and round(v.first_wait_s, 2),
        }
        for name, v in found.items()
    }
    return {
        "num_misclassified": len(wrong),
        "num_faults": len(found),
        "num_prompts_leaked_by_redirect": leaked,
        "faults": faults,
    }


def main() -> None:
    """Measure, print the table, write the result file."""
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    clients = {
        "ours": summary(verdicts(ours), num_leaked(lambda u, n: asyncio.run(ours(u, n)))),
        "raw openai client": summary(
            verdicts(raw_client), num_leaked(lambda u, n: asyncio.run(raw_client(u, n)))
        ),
        "Ray HttpRequestProcessor": summary(ray_verdicts(), num_leaked(ray_stage)),
    }
    ray.shutdown()
    print(f"| fault | means | {' | '.join(clients)} |\n|---|---|{'---|' * len(clients)}")
    for name, fault in FAULTS.items():
        cells = [c["faults"][name] for c in clients.values()]
        shown = [
            f"{c['verdict']}{'' if c['right'] else ' (wrong)'}, {c['num_calls']} calls"
            for c in cells
        ]
        print(f"| {name} | {fault.meaning} | {' | '.join(shown)} |")
    for key in ("num_misclassified", "num_prompts_leaked_by_redirect"):
        print(f"| {key} | | {' | '.join(str(c[key]) for c in clients.values())} |")
    mine = clients.pop("ours")
    others = min(c["num_misclassified"] for c in clients.values())
    passed = mine["num_misclassified"] == 0 and mine["num_prompts_leaked_by_redirect"] == 0
    path = write_result(
        "teacher-faults",
        "python -m benchmarks.teacher_faults",
        mine,
        clients,
        mine["num_misclassified"] / max(1, others),
        {"note": "deterministic replies: one run"},
        passed=passed,
    )
    print(path)


if __name__ == "__main__":
    main()
