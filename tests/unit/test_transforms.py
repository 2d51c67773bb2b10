"""Spoilt critiques: what each transform does to a text, to whom, and how it is recorded."""

import random
from collections import Counter
from collections.abc import Callable
from typing import get_args

import pytest

from cgd_ray.errors import UserError
from cgd_ray.examples.chat import ChatTokenizer
from cgd_ray.examples.mixing import spoilt_chains
from cgd_ray.examples.objectives import Chain
from cgd_ray.examples.transforms import TRANSFORMS, donors, spoilt
from cgd_ray.pipeline.examples import build_examples
from cgd_ray.settings import Settings
from cgd_ray.settings.examples import CritiqueTransform
from cgd_ray.tutor.arithmetic import Step
from cgd_ray.tutor.feedback import write_critique
from tests.support.merging_tokenizer import merging_tokenizer
from tests.support.records import critique, draft, prompt, refinement


def taught(name: str, text: str, index: int = 0) -> Chain:
    """Return the chain of one draft of the prompt with this name."""
    key = f"{name}/{index}"
    made = critique(text, draft_id=key)
    return Chain(prompt(name, id=name), draft(id=key, prompt_id=name), made, refinement())


def text_of(transform: str, text: str, *, seed: int = 1, name: str = "p") -> str | None:
    chain = spoilt(taught(name, text), transform, "the donor's", seed)
    return chain and chain.critique.text


def test_the_table_holds_the_transforms_of_the_settings() -> None:
    assert {"none", *TRANSFORMS} == set(get_args(CritiqueTransform))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Step 1 is wrong.", "Step 1 is right."),
        ("The result is right, but step 2 is wrong.", "The result is wrong, but step 2 is right."),
        ("Correct! Going from left to right", "Incorrect! Going from left to right"),
        ("This is not correct.", "This is correct."),
        ("That is incorrectly done on the right.", "That is correctly done on the right."),
        ("Correcting is corrected.", None),
    ],
)
def test_verdicts_are_flipped_and_directions_kept(before: str, after: str | None) -> None:
    assert text_of("verdict_flipped", before) == after


def test_a_flip_undone_is_the_critique() -> None:
    text = "Step 1 is right, step 2 is wrong: the sum is valid but inaccurate."
    assert text_of("verdict_flipped", text_of("verdict_flipped", text) or "") == text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Step 1 is wrong: redo 3 + 4.", {"Step 2 is wrong: redo 3 + 4."}),
        ("See step 3 and line 4.", {"See step 2 and line 3.", "See step 4 and line 5."}),
        ("The result is wrong.", {None}),
    ],
)
def test_another_step_is_named(before: str, after: set[str | None]) -> None:
    assert {text_of("wrong_step", before, seed=seed) for seed in range(20)} == after


def test_the_rest_by_hand() -> None:
    assert text_of("truncated", "one two three four five") == "one two three"
    assert text_of("truncated", "one") is None
    assert text_of("shuffled", "mine") == "the donor's"
    assert text_of("generic", "mine") == text_of("generic", "another's", name="q")
    words = (text_of("random_text", "Step 1 is wrong.") or "").split()
    assert len(words) == 4
    assert not {"Step", "1", "is", "wrong."} & set(words)


@pytest.mark.parametrize("transform", ["random_text", "wrong_step"])
def test_what_is_drawn_depends_on_row_and_seed_alone(transform: str) -> None:
    text = "Look at step 5. " * 4
    assert text_of(transform, text) == text_of(transform, text)
    assert len({text_of(transform, text, seed=s, name=n) for s in range(5) for n in "abc"}) > 1


def test_the_tutors_critiques_can_be_flipped_and_misplaced() -> None:
    steps = (Step(3, "+", 4, 7), Step(7, "-", 2, 5))
    for answer in ("3 + 4 = 8\n8 - 2 = 6", "3 + 4 = 7\n7 - 2 = 4", "\\boxed{5}"):
        text = write_critique(steps, answer, "none")
        assert text_of("verdict_flipped", text) not in (None, text)
        if "tep 1" in text or "tep 2" in text:
            assert text_of("wrong_step", text) not in (None, text)


@pytest.mark.parametrize("seed", range(8))
def test_critiques_are_shuffled_between_prompts(seed: int) -> None:
    draw = random.Random(seed)
    chains = [
        taught(f"p{i}", f"of p{i}/{j}", j) for i in range(10) for j in range(draw.randint(1, 3))
    ]
    draw.shuffle(chains)
    given = donors(chains, seed)
    assert set(given) == {c.draft.id for c in chains}
    assert Counter(given.values()) == Counter(c.critique.text for c in chains), "each once"
    assert all(f"of {c.prompt.id}/" not in given[c.draft.id] for c in chains)
    assert given == donors(chains[::-1], seed)
    assert given != donors(chains, seed + 1)


def test_without_a_second_prompt_there_is_no_donor() -> None:
    assert donors([], 1) == {}
    assert donors([taught("p", "a"), taught("p", "b", 1)], 1) == {}
    three = [taught("p", "a"), taught("p", "b", 1), taught("p", "c", 2), taught("q", "d")]
    assert set(donors(three, 1).values()) <= {"a", "b", "c", "d"}
    assert "d" in donors(three, 1).values()


def test_a_larger_share_spoils_more_rows_and_no_others() -> None:
    chains = [taught(f"p{i}", "right") for i in range(40)]
    small, large = (spoilt_chains(chains, share, 1) for share in (0.25, 0.5))
    assert (len(small), len(large)) == (10, 20)
    assert small < large
    assert spoilt_chains(chains, 1.0, 1) == {c.draft.id for c in chains}


def test_examples_say_how_their_critique_was_spoilt(demo: Callable[..., Settings]) -> None:
    settings = demo(
        "examples.critique_transform=wrong_step",
        "examples.critique_transform_share=0.5",
        "packing.sequence_length=1000",
    )
    chains = [taught(f"p{i}", "Step 1 is wrong." if i else "No.") for i in range(20)]
    examples, failures = build_examples(settings, chains, ChatTokenizer(merging_tokenizer()))
    marked = Counter(e.critique_transform for e in examples if e.objective == "cgd")
    assert sum(marked.values()) + len(failures) == 20
    assert marked["wrong_step"] + len(failures) == 10
    assert {e.critique_transform for e in examples if e.objective == "prompt_only"} == {"none"}
    whole, _ = build_examples(
        demo("packing.sequence_length=1000"), chains, ChatTokenizer(merging_tokenizer())
    )
    plain = {e.id: e.input_ids for e in whole}
    changed = {e.id for e in examples if e.input_ids != plain[e.id]}
    assert changed == {e.id for e in examples if e.critique_transform == "wrong_step"}


def test_a_critique_that_cannot_be_spoilt_is_a_failed_row(demo: Callable[..., Settings]) -> None:
    settings = demo("examples.critique_transform=wrong_step", "packing.sequence_length=1000")
    chains = [taught("p", "Step 1 is wrong."), taught("q", "No.")]
    examples, failures = build_examples(settings, chains, ChatTokenizer(merging_tokenizer()))
    assert [e.critique_transform for e in examples if e.objective == "cgd"] == ["wrong_step"]
    (failure,) = failures.values()
    assert (failure.row_id, failure.reason) == ("q/0#cgd", "not_transformable")
    assert "a step that is named by number" in failure.detail


def test_a_transform_without_a_critique_is_refused(demo: Callable[..., Settings]) -> None:
    with pytest.raises(UserError, match="critique_transform=generic needs a critique"):
        demo("examples.critique_transform=generic", "examples.objective=cft")
