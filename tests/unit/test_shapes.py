"""The shapes of rows: what each becomes, and which rows are refused rather than cut down."""

import pytest

from cgd_ray.errors import UserError
from cgd_ray.prompts.rows import Row
from cgd_ray.prompts.shapes import Problem, Unusable, shape_of, to_problem
from cgd_ray.settings import PromptSettings

USER, SYSTEM = {"role": "user", "content": " Why? "}, {"role": "system", "content": "Be brief."}
ANSWER = {"role": "assistant", "content": "So."}
AGAIN = [{"role": "user", "content": "And?"}, {"role": "assistant", "content": "Thus."}]
HUMAN, GPT = {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}


def read(values: dict[str, object], **settings: object) -> Problem | Unusable:
    asked = PromptSettings(train="a.jsonl", test="b.jsonl", **settings)
    row = Row("a.jsonl", 1, values)
    return to_problem(row, shape_of(row, asked), asked)


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        ({"prompt": "x", "answer": "1"}, "columns"),
        ({"prompt": "x", "messages": [USER]}, "columns"),
        ({"messages": [USER]}, "messages"),
        ({"conversations": [HUMAN]}, "sharegpt"),
        ({"instruction": "x", "input": "", "output": "y"}, "alpaca"),
        ({"question": "x"}, "columns"),
        ({}, "columns"),
    ],
)
def test_the_names_of_the_first_row_tell_the_shape(values: dict[str, object], shape: str) -> None:
    asked = PromptSettings(train="a.jsonl", test="b.jsonl")
    assert shape_of(Row("a.jsonl", 1, values), asked) == shape


@pytest.mark.parametrize(("turn", "shape"), [(HUMAN, "sharegpt"), (USER, "messages")])
def test_a_named_conversation_is_of_the_shape_that_its_turns_have(turn: object, shape: str) -> None:
    asked = PromptSettings(train="a", test="b", columns={"conversation": "chat"})
    assert shape_of(Row("a", 1, {"chat": [turn]}), asked) == shape


def test_the_settings_outdo_the_names() -> None:
    asked = PromptSettings(train="a", test="b", shape="alpaca")
    assert shape_of(Row("a", 1, {"prompt": "x"}), asked) == "alpaca"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"messages": [USER, ANSWER]}, Problem("Why?", None, "So.")),
        ({"messages": [USER], "answer": 4}, Problem("Why?", 4, None)),
        ({"messages": [USER, {**ANSWER, "content": "Hm."}, ANSWER]}, Problem("Why?", None, "So.")),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}]},
            Problem("Why?"),
        ),
        ({"messages": [{"role": "system", "content": " "}, USER]}, Problem("Why?")),
        ({"conversations": [HUMAN, GPT], "answer": "4"}, Problem("Why?", "4", "So.")),
        (
            {"instruction": "Add.", "input": "1, 2", "output": "3"},
            Problem("Add.\n\n1, 2", None, "3"),
        ),
        ({"instruction": "Why?", "input": "", "output": "So."}, Problem("Why?", None, "So.")),
        ({"instruction": "Why?", "output": None}, Problem("Why?")),
        ({"instruction": " ", "output": "So."}, Problem("", None, "So.")),
    ],
)
def test_a_row_is_read_as_what_it_says(values: dict[str, object], problem: Problem) -> None:
    assert read(values) == problem


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"messages": [SYSTEM, USER, ANSWER]}, "system_message"),
        ({"messages": [{**SYSTEM, "role": "developer"}, USER]}, "system_message"),
        ({"messages": [USER, ANSWER, *AGAIN]}, "multi_turn"),
        ({"messages": [USER, USER]}, "multi_turn"),
        ({"messages": [USER, {**ANSWER, "tool_calls": [{"id": "1"}]}]}, "tool_calls"),
        ({"messages": [USER, {"role": "tool", "content": "4"}]}, "tool_calls"),
        ({"messages": [USER, ANSWER], "tools": [{"name": "f"}]}, "tool_calls"),
        ({"messages": [ANSWER, USER]}, "no_question"),
        ({"messages": [SYSTEM]}, "no_question"),
        ({"messages": []}, "no_question"),
        ({"messages": "Why?"}, "bad_turns"),
        ({"messages": ["Why?"]}, "bad_turns"),
        ({"messages": [{"content": "Why?"}]}, "bad_turns"),
        ({"messages": [{"role": "narrator", "content": "Once"}]}, "bad_turns"),
        ({"messages": [{"role": "user", "content": None}]}, "bad_turns"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "bad_turns"),
        ({"conversations": [HUMAN, {"from": "function_call", "value": "f()"}]}, "tool_calls"),
        ({"conversations": [{"from": "system", "value": "Be brief."}, HUMAN]}, "system_message"),
        ({"conversations": [HUMAN, GPT, HUMAN, GPT]}, "multi_turn"),
        ({"instruction": "x", "output": "y", "history": [["a", "b"]]}, "multi_turn"),
        ({"instruction": "x", "output": "y", "system": "Be brief."}, "system_message"),
        ({"instruction": ["x"], "output": "y"}, "bad_turns"),
    ],
)
def test_a_row_that_says_more_than_one_question_is_refused(
    values: dict[str, object], reason: str
) -> None:
    refused = read(values)
    assert isinstance(refused, Unusable)
    assert refused.reason == reason


def test_system_messages_are_taken_as_the_settings_say() -> None:
    values: dict[str, object] = {"messages": [SYSTEM, USER, ANSWER]}
    assert read(values, system_message="drop") == Problem("Why?", None, "So.")
    assert read(values, system_message="prepend") == Problem("Be brief.\n\nWhy?", None, "So.")


def test_the_first_turn_of_many_goes_without_the_reference_of_the_last() -> None:
    values: dict[str, object] = {"messages": [USER, ANSWER, *AGAIN], "answer": "of the last"}
    assert read(values, multi_turn="first") == Problem("Why?", None, "So.")


@pytest.mark.parametrize(
    ("values", "shape", "said"),
    [
        ({"text": "x"}, "messages", "a.jsonl:1 has no column 'messages' (it has text)"),
        ({"text": "x"}, "sharegpt", "no column 'conversations'"),
        ({"text": "x"}, "alpaca", "no column 'instruction' (it has text): set prompts.shape"),
        ({"instruction": "x"}, "alpaca", "no column 'output'"),
        ({"text": "x"}, "columns", "no column 'prompt' (it has text): set prompts.columns.prompt"),
    ],
)
def test_a_missing_column_is_named(values: dict[str, object], shape: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        read(values, shape=shape)
    assert said in str(raised.value)
