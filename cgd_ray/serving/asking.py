"""`cgd ask`: ask every served model one question and put the answers side by side."""

import argparse
import shutil
import sys
import textwrap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from typing import Any

import httpx

from cgd_ray.errors import UserError
from cgd_ray.serving.api_keys import read_keys

_KEYS = "CGD_API_KEYS"
_GAP = 3  # columns between two answers
_MIN_WIDTH = 30  # columns of an answer; in a narrower terminal answers come one below the other


def main(argv: Sequence[str] | None = None) -> int:
    """Ask from the command line; return the exit status: 0, or 2 for a user's error."""
    parser = argparse.ArgumentParser(
        prog="cgd ask", description="ask every served model and print the answers side by side"
    )
    parser.add_argument("question")
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1", help="root of the API")
    parser.add_argument("--model", action="append", default=[], help="only this one; repeatable")
    parser.add_argument("--keys-file", help=f"file whose first line is the API key (else ${_KEYS})")
    parser.add_argument("--max-tokens", type=int, default=256, help="longest answer (default 256)")
    parser.add_argument("--temperature", type=float, default=0.0, help="default 0: greedy")
    args = parser.parse_args(argv)
    try:
        answers = ask_models(
            args.question,
            base_url=args.url.rstrip("/"),
            key=next(iter(read_keys(args.keys_file, _KEYS)), None),
            models=args.model,
            max_tokens=args.max_tokens,
            temperature=args.temperature,
        )
    except UserError as error:
        print(f"cgd ask: {error}", file=sys.stderr)
        return 2
    print(side_by_side(answers))
    return 0


def ask_models(
    question: str,
    *,
    base_url: str,
    key: str | None,
    models: Sequence[str] = (),
    max_tokens: int = 256,
    temperature: float = 0.0,
    timeout_s: float = 300.0,
) -> list[tuple[str, str]]:
    """Return each model's id and answer.

    Args:
        question: what is asked, as it stands.
        base_url: root of an OpenAI-compatible API.
        key: its API key, if it wants one.
        models: ids; none: every model that it serves.
        max_tokens: longest answer.
        temperature: 0 is greedy.
        timeout_s: limit on one answer.

    Raises:
        UserError: the server is away or refuses; its own words are in the message.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(headers=headers, timeout=timeout_s) as client:
        listed = models or [m["id"] for m in _call(client, "GET", f"{base_url}/models")["data"]]

        def answer(model: str) -> str:
            body = {
                "model": model,
                "messages": [{"role": "user", "content": question}],
                "max_tokens": max_tokens,
                "temperature": temperature,
            }
            data = _call(client, "POST", f"{base_url}/chat/completions", body)
            return data["choices"][0]["message"]["content"] or ""

        with ThreadPoolExecutor(len(listed)) as pool:
            return list(zip(listed, pool.map(answer, listed), strict=True))


def side_by_side(answers: Sequence[tuple[str, str]], width: int | None = None) -> str:
    """Return answers in columns, or one below the other where columns would be too narrow.

    Args:
        answers: heading and text of each.
        width: columns of the terminal; None asks it.
    """
    width = width or shutil.get_terminal_size().columns
    each = (width - _GAP * (len(answers) - 1)) // len(answers)
    safe = [(_printable(name), _printable(text)) for name, text in answers]
    if each < _MIN_WIDTH:
        return "\n\n".join(f"{name}\n{'-' * len(name)}\n{text}" for name, text in safe)
    columns = [[name, "-" * len(name), *_wrapped(text, each)] for name, text in safe]
    rows = zip_longest(*columns, fillvalue="")
    return "\n".join((" " * _GAP).join(f"{cell:<{each}}" for cell in row).rstrip() for row in rows)


def _printable(text: str) -> str:
    """Return a text that cannot steer the terminal: control characters are shown, not sent."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def _wrapped(text: str, width: int) -> list[str]:
    return [line for part in text.splitlines() for line in textwrap.wrap(part, width) or [""]]


def _call(client: httpx.Client, method: str, url: str, body: object = None) -> dict[str, Any]:
    try:
        response = client.request(method, url, json=body)
        data = response.json()
    except httpx.HTTPError as error:
        raise UserError(
            f"{url}: {str(error) or type(error).__name__}; is `cgd serve` up?"
        ) from error
    except ValueError as error:
        raise UserError(f"{url} does not answer in JSON: no OpenAI-compatible API") from error
    if response.is_success:
        return data
    message = data.get("error", {}).get("message") or response.text[:200]
    hint = f": set ${_KEYS} or --keys-file" if response.status_code == 401 else ""
    raise UserError(f"{url}: {response.status_code} {message}{hint}")
