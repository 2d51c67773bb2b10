"""The shapes of rows: text columns, chats, ShareGPT chats, Alpaca instructions.

A row becomes a problem (what is asked, and what the data says is right), or the reason why it
cannot be one. A student is asked one question and answers it: a row that says more than that, a
system message, earlier turns, tools, images, is never cut down in silence.
"""

from dataclasses import dataclass
from typing import Any, Literal

from cgd_ray.errors import UserError
from cgd_ray.prompts.rows import Row
from cgd_ray.settings import PromptSettings

Shape = Literal["columns", "messages", "sharegpt", "alpaca"]

_ROLES = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
    "function_call": "tool",
    "function_response": "tool",
    "observation": "tool",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """A row's question and what its data says about the answer, as yet unchecked."""

    prompt: object
    reference: object = None
    solution: object = None


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why a row is no problem."""

    reason: str  # a short fixed word, for counting
    why: str  # for a person


@dataclass(frozen=True, slots=True)
class _Turn:
    role: str  # "system", "user", "assistant"
    text: str


def shape_of(row: Row, settings: PromptSettings) -> Shape:
    """Return the shape that the settings name, or that the names in a source's first row tell."""
    if settings.shape != "auto":
        return settings.shape
    if settings.columns.prompt in row.values:
        return "columns"
    if settings.conversation_column("sharegpt") in row.values:
        turns = row.values[settings.conversation_column("sharegpt")]
        first: object = turns[0] if isinstance(turns, list) and turns else None
        if settings.columns.conversation is None or (isinstance(first, dict) and "from" in first):
            return "sharegpt"
    if settings.conversation_column("messages") in row.values:
        return "messages"
    return "alpaca" if {"instruction", "output"} <= row.values.keys() else "columns"


def to_problem(row: Row, shape: Shape, settings: PromptSettings) -> Problem | Unusable:
    """Return the problem of a row, or why it has none.

    Raises:
        UserError: the row lacks a column.
    """
    columns = settings.columns
    if shape == "columns":
        prompt = column(row, columns.prompt, "prompts.columns.prompt")
        reference = None
        if columns.reference is not None:
            reference = column(row, columns.reference, "prompts.columns.reference")
        solution = row.values.get(columns.solution) if columns.solution else None
        return Problem(prompt, reference, solution)
    reference = row.values.get(columns.reference) if columns.reference else None
    if row.values.get("tools"):
        return Unusable("tool_calls", "the row offers tools")
    turns = _alpaca_turns(row) if shape == "alpaca" else _chat_turns(row, shape, settings)
    return turns if isinstance(turns, Unusable) else _ask(turns, reference, settings)


def column(row: Row, name: str, setting: str) -> object:
    """Return a value of a row.

    Raises:
        UserError: the row has no such column; the message names the setting.
    """
    if name not in row.values:
        raise UserError(
            f"{row.where} has no column '{name}' (it has {', '.join(map(str, row.values))}): set "
            f"{setting}"
        )
    return row.values[name]


def _alpaca_turns(row: Row) -> list[_Turn] | Unusable:
    asked = [column(row, "instruction", "prompts.shape"), row.values.get("input")]
    if row.values.get("history"):
        return Unusable("multi_turn", "the row has earlier turns (history)")
    if not all(part is None or isinstance(part, str) for part in asked):
        return Unusable("bad_turns", "the instruction or the input is not text")
    parts = [part.strip() for part in asked if isinstance(part, str)]
    turns = [_Turn("user", "\n\n".join(part for part in parts if part))]
    system, output = row.values.get("system"), column(row, "output", "prompts.shape")
    if isinstance(system, str) and system.strip():
        turns.insert(0, _Turn("system", system))
    return [*turns, _Turn("assistant", output)] if isinstance(output, str) else turns


def _chat_turns(row: Row, shape: Shape, settings: PromptSettings) -> list[_Turn] | Unusable:
    name = settings.conversation_column(shape)
    chat: Any = column(row, name, "prompts.columns.conversation or prompts.shape")
    role_key, text_key = ("from", "value") if shape == "sharegpt" else ("role", "content")
    if not isinstance(chat, list) or not all(isinstance(turn, dict) for turn in chat):
        return Unusable("bad_turns", f"'{name}' is not a list of turns")
    turns: list[_Turn] = []
    for turn in chat:
        role = _ROLES.get(str(turn.get(role_key)).lower())
        if role is None:
            said = f"a turn has no {role_key}, or one that is not known ({turn.get(role_key)!r})"
            return Unusable("bad_turns", said)
        if role == "tool" or turn.get("tool_calls") or turn.get("function_call"):
            return Unusable("tool_calls", "a turn calls a tool")
        text = _text(turn.get(text_key))
        if text is None:
            return Unusable("bad_turns", f"the {text_key} of a turn is not text alone")
        turns.append(_Turn(role, text))
    return turns


def _text(content: object) -> str | None:
    """Return the text of a turn: a string, or a list of text parts; None if there is more."""
    if isinstance(content, list):
        parts = [p.get("text") for p in content if isinstance(p, dict) and p.get("type") == "text"]
        texts = [part for part in parts if isinstance(part, str)]
        return "".join(texts) if len(texts) == len(content) else None
    return content if isinstance(content, str) else None


def _ask(turns: list[_Turn], reference: object, settings: PromptSettings) -> Problem | Unusable:
    system = [turn.text for turn in turns if turn.role == "system" and turn.text.strip()]
    turns = [turn for turn in turns if turn.role != "system"]
    if not turns or turns[0].role != "user":
        return Unusable("no_question", "the chat does not begin with a user's turn")
    ends = next((i for i, t in enumerate(turns) if i and t.role == "user"), len(turns))
    if ends < len(turns) and settings.multi_turn == "fail":
        said = "the chat has several user turns (prompts.multi_turn=first takes the first)"
        return Unusable("multi_turn", said)
    if system and settings.system_message == "fail":
        said = "the chat has a system message (prompts.system_message=drop or prepend takes it)"
        return Unusable("system_message", said)
    before = [text.strip() for text in system] if settings.system_message == "prepend" else []
    answers = [turn.text for turn in turns[1:ends]]
    # The reference of a row is about its last question.
    known = reference if ends == len(turns) else None
    prompt = "\n\n".join([*before, turns[0].text.strip()]) if turns[0].text.strip() else ""
    return Problem(prompt, known, answers[-1] if answers else None)
