"""The same calls through another project's client; runs in that project's own environment.

python teacher_rivals.py curator|distilabel < task.json     # prints one line of JSON
"""

import json
import os
import re
import sys
import tempfile
import time
from importlib.metadata import version
from typing import Any


def curator(task: dict[str, Any]) -> dict[str, Any]:
    """Ask through Bespoke Curator's online processor, its cache empty and off."""
    os.environ["CURATOR_DISABLE_CACHE"] = "1"
    os.environ["CURATOR_DISABLE_RICH_DISPLAY"] = "1"
    os.environ["TELEMETRY_ENABLED"] = "0"
    os.environ["OPENAI_API_KEY"] = "key"
    os.environ["CURATOR_CACHE_DIR"] = tempfile.mkdtemp()
    import tiktoken

    # It downloads a vocabulary to count tokens for its rate limit, which a machine without a
    # network cannot: a cheaper count stands in.
    tiktoken.get_encoding = lambda _: _Counting()
    from bespokelabs import curator as library

    class Critic(library.LLM):
        """Sends the chat as it is."""

        def prompt(self, row: dict[str, Any]) -> Any:  # noqa: ANN401, its own interface
            return row["messages"]

        def parse(self, row: dict[str, Any], response: str) -> dict[str, Any]:
            return {"asked": row["messages"][-1]["content"], "answer": response}

    critic = Critic(
        model_name="fast",
        backend="openai",
        generation_params={"max_tokens": task["max_tokens"], "temperature": 0.0},
        backend_params={
            "base_url": task["base_url"],
            "max_concurrent_requests": task["num_at_once"],
            "max_requests_per_minute": 10**6,
            "max_tokens_per_minute": 10**9,
            "max_retries": 5,
            "require_all_responses": False,
        },
    )
    start = time.perf_counter()
    made = critic([{"messages": chat} for chat in task["chats"]])
    seconds = time.perf_counter() - start
    rows = getattr(made, "dataset", made)
    return {
        "version": version("bespokelabs-curator"),
        "seconds": seconds,
        "num_right": sum(_right(row["asked"], row["answer"]) for row in rows),
    }


class _Counting:
    def encode(self, text: str, **_: object) -> list[int]:
        return [0] * (len(text) // 4)


def distilabel(task: dict[str, Any]) -> dict[str, Any]:
    """Ask through distilabel's OpenAI client, in batches of as many calls as may be under way."""
    from distilabel.models import OpenAILLM

    model = OpenAILLM(
        model="fast", base_url=task["base_url"], api_key="key", max_retries=5, timeout=60
    )
    model.load()
    size, chats, num_right = task["num_at_once"], task["chats"], 0
    start = time.perf_counter()
    for i in range(0, len(chats), size):
        batch = chats[i : i + size]
        made = model.generate(inputs=batch, max_new_tokens=task["max_tokens"], temperature=0.0)
        for chat, found in zip(batch, made, strict=True):
            num_right += _right(chat[-1]["content"], found["generations"][0])
    seconds = time.perf_counter() - start
    return {"version": version("distilabel"), "seconds": seconds, "num_right": num_right}


def _right(asked: str, answer: str | None) -> bool:
    row = re.search(r"row-\d+-end", asked)
    return row is not None and str(answer).startswith(f"{row[0]} ")


if __name__ == "__main__":
    chosen = {"curator": curator, "distilabel": distilabel}[sys.argv[1]]
    print(json.dumps(chosen(json.load(sys.stdin))), flush=True)
