"""What the gateway adds to a request: microseconds, in process, behind an application of one line.

The same application is asked with and without the gateway, alternately. A body is a chat whose
only message has so many characters; a stream is 100 events.
"""

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.results import write_result
from cgd_ray.serving.bounds import CHAT, ROUTES, Limits
from cgd_ray.serving.gateway import Gateway, Policy

SIZES = (200, 10_000, 900_000)  # characters
NUM_EVENTS = 100
REPEATS = 15
SECONDS = 0.1  # of one repeat
GOAL_US = 1000.0  # a tenth of the 10 ms that all of Ray Serve may add to the first token
COMMAND = "python -m benchmarks.gateway"
_KEY = "a-key-of-this-benchmark"


class Nothing:
    """A meter that counts nothing."""

    def started(self, num_in_flight: int) -> None:
        """Ignore it."""

    def finished(self, path: str, status: int, seconds: float, num_in_flight: int) -> None:
        """Ignore it."""


def main() -> None:
    """Measure every size and the stream, and write the result."""
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys"
        keys.touch(0o600)
        keys.write_text(_KEY, encoding="utf-8")
        gateway = _gateway(keys)
        added = {f"{size}_characters": _added_us(gateway, size, 1) for size in SIZES}
        added["stream_of_100_events"] = _added_us(gateway, SIZES[0], NUM_EVENTS)
    ours = {
        f"{name}_added_us": round(statistics.median(values), 1) for name, values in added.items()
    }
    spread = {f"{n}_us_min_max": [round(min(v), 1), round(max(v), 1)] for n, v in added.items()}
    worst = statistics.median(added[f"{SIZES[1]}_characters"])
    path = write_result(
        "gateway",
        COMMAND,
        ours,
        {"goal_us": GOAL_US},
        worst / GOAL_US,
        spread,
        passed=worst < GOAL_US,
    )
    print(json.dumps(ours, indent=1), path)


def _gateway(keys: Path) -> Gateway:
    limits = Limits(2**20, 2048, 64, structured_outputs=False, models=frozenset("m"))
    policy = Policy(limits, ROUTES, {}, 256, 1, 300.0, 30.0, str(keys), "CGD_API_KEYS")
    return Gateway(_application, policy=policy, make_meter=Nothing)


async def _application(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number in range(1, scope["num_events"] + 1):
        more = number < scope["num_events"]
        await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": more})


def _added_us(gateway: Gateway, num_characters: int, num_events: int) -> list[float]:
    """Return microseconds that the gateway adds to one request, for each repeat."""
    pairs = [
        (_us(gateway, num_characters, num_events), _us(_application, num_characters, num_events))
        for _ in range(REPEATS)
    ]
    return [guarded - bare for guarded, bare in pairs]


def _us(app: Any, num_characters: int, num_events: int) -> float:  # noqa: ANN401
    messages = [{"role": "user", "content": "x" * num_characters}]
    body = json.dumps({"model": "m", "messages": messages, "max_tokens": 64}).encode()
    headers = {"authorization": f"Bearer {_KEY}", "content-type": "application/json"}
    scope = {
        "type": "http",
        "method": "POST",
        "path": CHAT,
        "client": ("127.0.0.1", 1),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "num_events": num_events,
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None: ...

    async def ask() -> float:
        num_requests, start = 0, time.perf_counter()
        while (seconds := time.perf_counter() - start) < SECONDS:
            await app(scope, receive, send)
            num_requests += 1
        return 1e6 * seconds / num_requests

    return asyncio.run(ask())


if __name__ == "__main__":
    main()
