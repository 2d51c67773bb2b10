"""The objectives: who sees what, who learns what; and the share of plain examples beside them."""

from collections.abc import Callable
from typing import get_args

import pytest

from cgd_ray.examples.chat import ChatTokenizer
from cgd_ray.examples.mixing import prompt_only_chains
from cgd_ray.examples.objectives import OBJECTIVES, PROMPT_ONLY, Chain, build_example, render
from cgd_ray.pipeline.examples import build_examples
from cgd_ray.prompts.messages import Message
from cgd_ray.records import Example, Failure
from cgd_ray.settings import Objective, Settings
from tests.support.merging_tokenizer import merging_tokenizer
from tests.support.records import chain, critique, draft, prompt, refinement

MADE = chain("X", "Y_DRAFT", "CRITIQUE", "Y_REFINED", solution="Y_GOLD")
X: Message = {"role": "user", "content": "X"}
DRAFT: Message = {"role": "assistant", "content": "Y_DRAFT"}
EXPECTED: dict[str, tuple[list[Message], str]] = {
    "sft": ([X], "Y_GOLD"),
    "distilled_sft": ([X], "Y_REFINED"),
    "prompt_only": ([X], "Y_REFINED"),
    "cft": (
        [
            X,
            DRAFT,
            {
                "role": "user",
                "content": "Criticise this answer: say what is right and what is wrong in it.",
            },
        ],
        "CRITIQUE",
    ),
    "cgd": (
        [X, DRAFT, {"role": "user", "content": "CRITIQUE\n\nWrite the corrected answer."}],
        "Y_REFINED",
    ),
    "cgd_no_critique": (
        [X, DRAFT, {"role": "user", "content": "Write the corrected answer."}],
        "Y_REFINED",
    ),
    "cgd_no_draft": (
        [{"role": "user", "content": "X\n\nCRITIQUE\n\nWrite the corrected answer."}],
        "Y_REFINED",
    ),
}


def test_the_table_holds_the_objectives_of_the_settings() -> None:
    assert set(OBJECTIVES) == {*get_args(Objective), PROMPT_ONLY} == set(EXPECTED)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_what_is_seen_and_what_is_learnt(objective: str) -> None:
    assert render(objective, MADE) == EXPECTED[objective]


def test_the_refinement_is_never_in_its_own_context() -> None:
    for objective in OBJECTIVES:
        rendered = render(objective, MADE)
        assert rendered is not None
        context, target = rendered
        assert all(target not in message["content"] for message in context)


def test_braces_in_texts_are_text() -> None:
    hostile = chain("{refinement}", "{prompt} {0}", "{critique} %s", "{draft}")
    rendered = render("cgd", hostile)
    assert rendered is not None
    assert [m["content"] for m in rendered[0]] == [
        "{refinement}",
        "{prompt} {0}",
        "{critique} %s\n\nWrite the corrected answer.",
    ]
    assert rendered[1] == "{draft}"


def test_sft_takes_the_solution_then_the_reference_then_fails() -> None:
    assert render("sft", chain(solution="long", reference="5")) == ([QUESTION], "long")
    assert render("sft", chain(solution=None, reference="5")) == ([QUESTION], "5")
    without = chain(solution=None, reference=None)
    failure = build_example("sft", without, ChatTokenizer(merging_tokenizer()), 100)
    assert isinstance(failure, Failure)
    assert (failure.key, failure.reason, failure.permanent) == ("p/0#sft", "no_solution", True)
    assert render("cgd", without) is not None


QUESTION: Message = {"role": "user", "content": "What is 2 + 3?"}


def test_a_document_may_be_as_long_as_the_limit_and_no_longer() -> None:
    tokenizer = ChatTokenizer(merging_tokenizer())
    made = chain("a", "b", "c", "d")
    length = len("user:a;assistant:d") + 1
    assert isinstance(build_example("distilled_sft", made, tokenizer, length), Example)
    failure = build_example("distilled_sft", made, tokenizer, length - 1)
    assert failure == Failure(
        "p/0#distilled_sft",
        "examples",
        "too_long",
        f"{length} tokens; packing.sequence_length={length - 1} is the limit",
        permanent=True,
    )


LONG = chain("ab", "d" * 30, "c", "e" * 20)


@pytest.mark.parametrize("excess", [1, 10, 30])
def test_a_long_draft_loses_its_end_and_nothing_else(excess: int) -> None:
    tokenizer = ChatTokenizer(merging_tokenizer())
    whole = build_example("cgd", LONG, tokenizer, 1000)
    assert isinstance(whole, Example)
    limit = len(whole.input_ids) - excess
    cut = build_example("cgd", LONG, tokenizer, limit, "cut_draft")
    shorter = build_example(
        "cgd", chain("ab", "d" * (30 - excess), "c", "e" * 20), tokenizer, limit
    )
    assert isinstance(cut, Example) and isinstance(shorter, Example)
    assert (cut.input_ids, cut.loss_mask) == (shorter.input_ids, shorter.loss_mask)
    assert (whole.num_cut, cut.num_cut, shorter.num_cut) == (0, excess, 0)


def test_what_cutting_the_draft_cannot_mend_is_rejected() -> None:
    tokenizer = ChatTokenizer(merging_tokenizer())
    whole = build_example("cgd", LONG, tokenizer, 1000)
    assert isinstance(whole, Example)
    for objective, limit in [("cgd", len(whole.input_ids) - 31), ("distilled_sft", 30)]:
        failure = build_example(objective, LONG, tokenizer, limit, "cut_draft")
        assert isinstance(failure, Failure)
        assert failure.reason == "too_long"


def test_the_stage_cuts_as_the_settings_say(demo: Callable[..., Settings]) -> None:
    tokenizer = ChatTokenizer(merging_tokenizer())
    whole = build_example("cgd", LONG, tokenizer, 1000)
    assert isinstance(whole, Example)
    limit = f"packing.sequence_length={len(whole.input_ids) - 5}"
    examples, failures = build_examples(demo(limit), [LONG], tokenizer)
    assert [e.objective for e in examples] == ["prompt_only"]
    assert [f.reason for f in failures.values()] == ["too_long"]
    cut, failures = build_examples(demo(limit, "examples.on_too_long=cut_draft"), [LONG], tokenizer)
    assert {e.objective: e.num_cut for e in cut} == {"cgd": 5, "prompt_only": 0}
    assert failures == {}


def test_a_long_target_loses_its_end_and_never_learns_to_stop_there() -> None:
    tokenizer = ChatTokenizer(merging_tokenizer())
    whole = build_example("distilled_sft", LONG, tokenizer, 1000)
    assert isinstance(whole, Example)
    num_context = whole.loss_mask.count(0)
    cut = build_example("distilled_sft", LONG, tokenizer, num_context + 5, "cut_target")
    assert isinstance(cut, Example)
    assert cut.input_ids == whole.input_ids[: num_context + 5]
    assert cut.loss_mask == whole.loss_mask[: num_context + 5]
    assert cut.num_cut == len(whole.input_ids) - num_context - 5
    rejected = build_example("distilled_sft", LONG, tokenizer, num_context, "cut_target")
    assert isinstance(rejected, Failure), "a document without a target teaches nothing"


def test_examples_are_pinned(golden: Callable[[str, str], None], smollm2: ChatTokenizer) -> None:
    """Every token of one example of each objective, and whether it carries loss."""
    decode = smollm2._tokenizer.decode  # type: ignore[attr-defined]
    made = chain(
        "What is 12 - 5 + 3?",
        "12 - 5 = 7\n7 + 3 = 11",
        "Step 2 is wrong: add 3 to 7 again.",
        "12 - 5 = 7\n7 + 3 = 10\n\\boxed{10}",
        solution="12 - 5 = 7, then 7 + 3 = 10.",
    )
    lines: list[str] = []
    for objective in OBJECTIVES:
        example = build_example(objective, made, smollm2, 512)
        assert isinstance(example, Example)
        lines.append(f"--- {example.id}: {len(example.input_ids)} tokens (id, loss, text)")
        for token, loss in zip(example.input_ids, example.loss_mask, strict=True):
            lines.append(f"{token:6d} {loss} {decode([token])!r}")
    golden("examples.txt", "\n".join(lines) + "\n")


def chains(number: int) -> list[Chain]:
    return [
        Chain(prompt(id=f"{i}"), draft(id=f"{i}/0"), critique(), refinement())
        for i in range(number)
    ]


@pytest.mark.parametrize(
    ("number", "share", "expected"),
    [(8, 0.0, 0), (8, 0.2, 2), (8, 0.5, 8), (9, 0.25, 3), (1, 0.4, 1), (0, 0.5, 0)],
)
def test_plain_examples_are_that_share_of_all(number: int, share: float, expected: int) -> None:
    plain = prompt_only_chains(chains(number), share, 1)
    assert len(plain) == expected
    if number >= 8:
        assert len(plain) / (number + len(plain)) == pytest.approx(share)


def test_a_larger_share_keeps_the_smaller_ones_choice_and_the_order() -> None:
    all_chains = chains(40)
    small = [c.draft.id for c in prompt_only_chains(all_chains, 0.1, 1)]
    large = [c.draft.id for c in prompt_only_chains(all_chains, 0.4, 1)]
    assert set(small) < set(large)
    assert large == [c.draft.id for c in all_chains if c.draft.id in set(large)]
    assert large != [c.draft.id for c in all_chains][: len(large)]
    assert large != [c.draft.id for c in prompt_only_chains(all_chains, 0.4, 2)]
    backwards = prompt_only_chains(all_chains[::-1], 0.4, 1)
    assert {c.draft.id for c in backwards} == set(large)
