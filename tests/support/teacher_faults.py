"""What teachers do wrong, and what each fault means for a row (design: reliability, check 6)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tests.support.scripted_teacher import Reply, answer, chat

# "retry": ask again, later leave the row for another run. "fail": never ask this again. "stop": no
# row can succeed.
Meaning = Literal["retry", "fail", "stop"]


@dataclass(frozen=True)
class Fault:
    """One fault, played at every call about a row."""

    reply: Reply
    meaning: Meaning
    wish_s: float = 0.0  # how long the server asks to be left alone


_HTML = {"Content-Type": "text/html"}
_GOOD = answer(chat())
_FILTERED = answer(chat("", finish_reason="content_filter"))

FAULTS: Mapping[str, Fault] = {
    "429, Retry-After 2": Fault(answer({}, 429, Retry_After="2"), "retry", 2.0),
    "429, Retry-After 600": Fault(answer({}, 429, Retry_After="600"), "retry", 600.0),
    "500": Fault(answer({"error": {"message": "oops"}}, 500), "retry"),
    "529": Fault(answer({"error": {"message": "overloaded"}}, 529), "retry"),
    "reset": Fault(Reply(fault="reset"), "retry"),
    "hang": Fault(Reply(fault="hang"), "retry"),
    "truncated body": Fault(Reply(_GOOD.body, fault="truncate"), "retry"),
    "200, HTML": Fault(Reply(b"<html>log in</html>", headers=_HTML), "retry"),
    "200, error body": Fault(answer({"error": {"message": "busy"}}), "retry"),
    "200, no choices": Fault(answer({**chat(), "choices": []}), "retry"),
    "200, bad JSON": Fault(Reply(b'{"choices": [{"mess'), "retry"),
    "content filter": Fault(_FILTERED, "fail"),
    "401": Fault(answer({"error": {"message": "bad key"}}, 401), "stop"),
}
