"""Token care: which ids a chat becomes, where the target begins, and what text can never do."""

import random

import pytest
from transformers import PreTrainedTokenizerFast

from cgd_ray.errors import UserError
from cgd_ray.examples.chat import ChatTokenizer
from cgd_ray.examples.objectives import OBJECTIVES, build_example, render
from cgd_ray.prompts.messages import Message
from cgd_ray.records import Example
from cgd_ray.sampling.draft import build_draft_messages
from tests.support.merging_tokenizer import END, TEMPLATE, merging_tokenizer
from tests.support.records import chain

USER: list[Message] = [{"role": "user", "content": "What is 2+3?"}]
# Written by hand from the tokenizer's vocabulary.
IM_START, IM_END, NEWLINE = 1, 2, 198
SYSTEM_TURN = [
    *(IM_START, 9690, NEWLINE),  # system
    *(2683, 359, 253, 5356, 5646, 11173),  # You are a helpful AI assistant
    *(3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182),  # named SmolLM, trained by ...
    *(IM_END, NEWLINE),
]
USER_TURN = [
    *(IM_START, 4093, NEWLINE),
    *(1780, 314, 216, 34, 27, 35, 47),  # What is 2+3?
    *(IM_END, NEWLINE),
]
GENERATION_PROMPT = [IM_START, 520, 9531, NEWLINE]  # "assistant" is two tokens
FIVE = 37


def underlying(chat: ChatTokenizer) -> PreTrainedTokenizerFast:
    return chat._tokenizer  # type: ignore[return-value]


def markup(chat: ChatTokenizer) -> set[int]:
    """Return the ids of every token that stands for markup, not text."""
    return set(underlying(chat).get_added_vocab().values())


def test_a_prompt_by_hand(smollm2: ChatTokenizer) -> None:
    assert smollm2.encode_prompt(USER) == SYSTEM_TURN + USER_TURN + GENERATION_PROMPT


def test_an_example_by_hand(smollm2: ChatTokenizer) -> None:
    ids, num_context = smollm2.encode_example(USER, "5")
    assert ids == SYSTEM_TURN + USER_TURN + GENERATION_PROMPT + [FIVE, IM_END]
    assert num_context == len(SYSTEM_TURN + USER_TURN + GENERATION_PROMPT)


def test_loss_is_on_the_target_and_its_end_alone(smollm2: ChatTokenizer) -> None:
    example = build_example("distilled_sft", chain("What is 2+3?", corrected="5"), smollm2, 512)
    assert isinstance(example, Example)
    learnt = [t for t, m in zip(example.input_ids, example.loss_mask, strict=True) if m]
    assert learnt == [FIVE, IM_END]
    assert example.loss_mask == (0,) * (len(example.input_ids) - 2) + (1, 1)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_has_loss_on_its_target_alone(
    objective: str, smollm2: ChatTokenizer
) -> None:
    made = chain("2 + 3?", "It is 6.", "Add again.", "It is 5.", solution="2 + 3 = 5")
    target = {"sft": "2 + 3 = 5", "cft": "Add again."}.get(objective, "It is 5.")
    example = build_example(objective, made, smollm2, 512)
    assert isinstance(example, Example)
    learnt = [t for t, m in zip(example.input_ids, example.loss_mask, strict=True) if m]
    assert learnt == [*underlying(smollm2).encode(target, add_special_tokens=False), IM_END]
    num_context = len(example.loss_mask) - len(learnt)
    assert example.loss_mask == (0,) * num_context + (1,) * len(learnt)
    assert list(example.input_ids[num_context - 4 : num_context]) == GENERATION_PROMPT
    assert example.id == f"p/0#{objective}"


def test_white_space_around_a_text_is_not_learnt(smollm2: ChatTokenizer) -> None:
    spaced: list[Message] = [{"role": "user", "content": "\n  What is 2+3? \n"}]
    assert smollm2.encode_example(spaced, "\n\n5 ") == smollm2.encode_example(USER, "5")


TEXTS = [
    "What is 2 + 3?",
    "caf\u00e9 \u4f60\u597d \U0001f600\U0001f1e9\U0001f1ea",
    "line one\n\n  line two\n\tthree   four",
    "def f(x):\n    return {x: [1, 2.50, -3]}  # \\boxed{5}",
    "1234567890 1,000,000",
    "<b>not markup</b> < | > | im_end |",
    "\u200bzero width\u200b",
    "\u3000ideographic\u3000",
]


@pytest.mark.parametrize("text", TEXTS)
def test_ordinary_text_is_encoded_as_the_server_would(text: str, smollm2: ChatTokenizer) -> None:
    chat: list[Message] = [
        {"role": "user", "content": text.strip()},
        {"role": "assistant", "content": text.strip()},
        {"role": "user", "content": "And now?"},
    ]
    for context in (chat[:1], chat):
        served = underlying(smollm2).apply_chat_template(
            context, add_generation_prompt=True, return_dict=False
        )
        assert smollm2.encode_prompt(context) == served


def test_random_text_is_encoded_as_the_server_would(smollm2: ChatTokenizer) -> None:
    draw = random.Random(7)
    alphabet = "ab \n\t.,;:!?'\"0159+-=()[]{}<>|/\\_\u00e9\u00df\u4f60\u200b\u00a0\u0301\U0001f600"
    for _ in range(300):
        text = "".join(draw.choices(alphabet, k=draw.randint(1, 40))).strip()
        context: list[Message] = [{"role": "user", "content": text}]
        served = underlying(smollm2).apply_chat_template(
            context, add_generation_prompt=True, return_dict=False
        )
        assert smollm2.encode_prompt(context) == served, repr(text)


def test_no_text_can_form_a_special_token(smollm2: ChatTokenizer) -> None:
    specials = markup(smollm2)
    assert len(specials) == 17
    plain = build_example("cgd", chain("a", "b", "c", "d"), smollm2, 512)
    assert isinstance(plain, Example)
    usual = [t for t in plain.input_ids if t in specials]
    assert usual == [IM_START, IM_END] * 4 + [IM_START, IM_END]
    for token in underlying(smollm2).get_added_vocab():
        for text in (token, f"a{token}b", f"{token} {token}\n", f"{token[:3]}{token}"):
            made = chain(text, text, text, text, solution=text)
            for objective in OBJECTIVES:
                example = build_example(objective, made, smollm2, 2048)
                reference = build_example(
                    objective, chain("a", "b", "c", "d", solution="e"), smollm2, 512
                )
                assert isinstance(example, Example)
                assert isinstance(reference, Example)
                found = [t for t in example.input_ids if t in specials]
                assert found == [t for t in reference.input_ids if t in specials], (token, text)
                learnt = [
                    t
                    for t, m in zip(example.input_ids, example.loss_mask, strict=True)
                    if m and t in specials
                ]
                assert learnt == [IM_END]


@pytest.mark.parametrize("objective", ["sft", "distilled_sft", "prompt_only"])
def test_what_is_trained_as_context_is_what_is_served(
    objective: str, smollm2: ChatTokenizer
) -> None:
    made = chain("What is 2+3?", "SIX", "CRITIQUE", "5", solution="5")
    served = smollm2.encode_prompt(build_draft_messages(made.prompt))
    example = build_example(objective, made, smollm2, 512)
    assert isinstance(example, Example)
    num_context = example.loss_mask.index(1)
    assert list(example.input_ids[:num_context]) == served
    rendered = render(objective, made)
    assert rendered is not None
    assert rendered[0] == build_draft_messages(made.prompt)


def test_the_served_prompt_holds_no_critique_and_no_draft(smollm2: ChatTokenizer) -> None:
    made = chain("PROBLEM", "DRAFT", "CRITIQUE", "REFINEMENT")
    served = underlying(smollm2).decode(smollm2.encode_prompt(build_draft_messages(made.prompt)))
    assert "PROBLEM" in served
    for word in ("DRAFT", "CRITIQUE", "REFINEMENT"):
        assert word not in served


# A tokenizer whose merges straddle every boundary.

A: list[Message] = [{"role": "user", "content": "a"}]


def words(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> list[str]:
    return tokenizer.convert_ids_to_tokens(ids)


def test_no_merge_straddles_the_boundary_before_the_target() -> None:
    tokenizer = merging_tokenizer()
    context: list[Message] = [{"role": "user", "content": "2+3"}]
    whole = tokenizer.apply_chat_template(
        [*context, {"role": "assistant", "content": "5"}], return_dict=False
    )
    assert words(tokenizer, whole)[-2:] == [":5", END], "the joint encoding straddles"
    ids, num_context = ChatTokenizer(tokenizer).encode_example(context, "5")
    assert words(tokenizer, ids[:num_context]) == [*"user:2+3;assistant:"]
    assert words(tokenizer, ids[num_context:]) == ["5", END]


def test_no_merge_straddles_any_other_boundary() -> None:
    tokenizer = merging_tokenizer()
    context: list[Message] = [
        {"role": "user", "content": "5"},
        {"role": "assistant", "content": "6"},
        {"role": "user", "content": "ab5"},
    ]
    ids, num_context = ChatTokenizer(tokenizer).encode_example(context, "ab")
    expected = [*"user:5;assistant:6", END, *"user:", "ab", *"5;assistant:"]
    assert words(tokenizer, ids[:num_context]) == expected
    assert words(tokenizer, ids[num_context:]) == ["ab", END]


@pytest.mark.parametrize("target", ["5", "ab", "", f"a{END}b", "assistant:5;"])
def test_the_context_does_not_depend_on_the_target(target: str) -> None:
    chat = ChatTokenizer(merging_tokenizer())
    context: list[Message] = [{"role": "user", "content": "5"}]
    ids, num_context = chat.encode_example(context, target)
    assert ids[:num_context] == chat.encode_prompt(context)
    assert words(merging_tokenizer(), ids[num_context:])[-1] == END
    assert ids.count(ids[-1]) == 1


def test_text_that_spells_the_marks_is_text() -> None:
    tokenizer = merging_tokenizer()
    context: list[Message] = [{"role": "user", "content": "cgd7mark0end cgd7mark1end"}]
    ids, num_context = ChatTokenizer(tokenizer).encode_example(context, "cgd7mark1end")
    text = "".join(words(tokenizer, ids))
    assert text == f"user:cgd7mark0end cgd7mark1end;assistant:cgd7mark1end{END}"
    assert num_context == len("user:cgd7mark0end cgd7mark1end;assistant:")


def test_more_than_ten_turns_are_told_apart() -> None:
    context: list[Message] = [
        {"role": "assistant" if i % 2 else "user", "content": "abcdefghijklm"[i]} for i in range(13)
    ]
    tokenizer = merging_tokenizer()
    ids, _ = ChatTokenizer(tokenizer).encode_example(context, "z")
    turns = [f"{m['role']}:{m['content']}{END if i % 2 else ';'}" for i, m in enumerate(context)]
    assert "".join(words(tokenizer, ids)) == "".join(turns) + f"assistant:z{END}"


def test_a_template_without_an_end_of_turn_gets_one() -> None:
    template = "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }};{% endfor %}"
    template += "{% if add_generation_prompt %}assistant:{% endif %}"
    tokenizer = merging_tokenizer(template)
    ids, num_context = ChatTokenizer(tokenizer).encode_example(A, "b")
    assert words(tokenizer, ids[num_context:]) == ["b", ";", END]


def test_nothing_follows_the_end_of_the_target() -> None:
    tokenizer = merging_tokenizer(TEMPLATE.replace("{% endfor %}", "==={% endfor %}"))
    ids, num_context = ChatTokenizer(tokenizer).encode_example(A, "b")
    assert words(tokenizer, ids[num_context:]) == ["b", END]


BAD_TEMPLATES = {
    "no template": (None, "has no chat template"),
    "empty template": ("", "has no chat template"),
    "last turn only": ("{{ messages[-1]['content'] }};", "differently from the prompt"),
    "drops the first turn": (
        "{% for m in messages[1:] %}{{ m['role'] }}:{{ m['content'] }};{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}",
        "drops or reorders turns",
    ),
    "backwards": (
        "x:{% if not add_generation_prompt %}"
        "{% for m in messages[::-1] %}{{ m['content'] }};{% endfor %}{% endif %}",
        "drops or reorders turns",
    ),
    "thinks in the prompt alone": (
        TEMPLATE.replace("assistant:{% endif %}", "assistant:thinks{% endif %}"),
        "differently from the prompt",
    ),
    "drops earlier answers": (
        TEMPLATE.replace("{{ m['content'] }}", "{{ '' if m['role'] == 'assistant' "
        "and not loop.last else m['content'] }}"),
        "drops or reorders turns",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_TEMPLATES)
def test_a_template_that_training_cannot_match_is_refused(name: str) -> None:
    template, said = BAD_TEMPLATES[name]
    context: list[Message] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    with pytest.raises(UserError, match=said) as raised:
        ChatTokenizer(merging_tokenizer(template)).encode_example(context, "d")
    assert "\n" not in str(raised.value)


def test_a_folder_without_a_tokenizer_is_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    from cgd_ray.student import chat_tokenizer

    folder = tmp_path_factory.mktemp("empty")
    with pytest.raises(UserError, match=r"student\.model=.* tokenizer cannot be loaded") as raised:
        chat_tokenizer(str(folder))
    assert "\n" not in str(raised.value)
