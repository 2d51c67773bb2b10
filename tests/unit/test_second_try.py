"""`curation.leakage = "regenerate"`: a critique that leaks is asked for once more."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cgd_ray.audit.leakage import Leak
from cgd_ray.curation.verification import Findings, rejection
from cgd_ray.errors import UserError
from cgd_ray.identity import stage_folders
from cgd_ray.local_servers import tutor_server
from cgd_ray.prompts.messages import Message
from cgd_ray.records import Critique, Prompt, Refinement
from cgd_ray.settings import CurationSettings, Settings, TeacherSettings
from cgd_ray.teacher import again, critique
from cgd_ray.teacher.chain import teach
from cgd_ray.teacher.completion import Completion
from cgd_ray.teacher.credentials import HeaderKey
from cgd_ray.teacher.http import HttpLimits, HttpTeacher
from cgd_ray.teacher.second_try import SecondTry
from cgd_ray.teacher.wire.base import ChatOptions
from cgd_ray.teacher.wire.openai import OPENAI
from tests.support.plain_asker import PlainAsker
from tests.support.records import completion, draft, prompt

LEAKS, FINE = "Redo it: the answer is 83.", "Redo the first step."
PROBLEM = prompt("26 + 60 - 3 =", reference="83")


class Asked:
    """Answers in turn, and remembers what it was asked."""

    def __init__(self, *answers: Completion) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[list[Message], int, str]] = []

    async def ask(self, messages: list[Message], max_tokens: int, template: str) -> Completion:
        self.asked.append((messages, max_tokens, template))
        return self.answers.pop(0)


@pytest.fixture
def second_try() -> Iterator[SecondTry]:
    with closing(SecondTry()) as made:
        yield made


def taught(asked: Asked, second_try: SecondTry, problem: Prompt = PROBLEM) -> Critique:
    settings = TeacherSettings(critique_max_tokens=33)
    made = asyncio.run(teach(asked, (problem, draft("It is 80.")), settings, second_try))
    assert [type(record) for record in made.records] == [Critique, Refinement]
    found = made.records[0]
    assert isinstance(found, Critique)
    return found


def test_a_critique_that_leaks_is_asked_for_again(second_try: SecondTry) -> None:
    asked = Asked(completion(LEAKS), completion(FINE), completion("So it is \\boxed{83}."))
    found = taught(asked, second_try)
    assert found.text == FINE
    assert (found.num_input_tokens, found.num_output_tokens) == (20, 10), "both were paid"
    assert found.template == f"{critique.TEMPLATE} {again.TEMPLATE}"
    assert [template for _, _, template in asked.asked][1] == again.TEMPLATE
    assert asked.asked[1][1] == 33
    assert asked.asked[1][0][-1]["content"] == again.REQUEST
    refining = [m["content"] for m in asked.asked[2][0]]
    assert FINE in refining
    assert LEAKS not in refining, "the refinement is the second turn of the chat without it"


def test_one_that_does_not_leak_is_kept(second_try: SecondTry) -> None:
    asked = Asked(completion(FINE), completion("\\boxed{83}"))
    assert taught(asked, second_try).template == critique.TEMPLATE
    asked = Asked(completion(LEAKS), completion("\\boxed{83}"))
    assert taught(asked, second_try, prompt("?", reference=None)).text == LEAKS


def test_a_refused_second_one_leaves_the_first(second_try: SecondTry) -> None:
    refused = completion("", refusal="I will not")
    asked = Asked(completion(LEAKS), refused, completion("\\boxed{83}"))
    assert taught(asked, second_try).text == LEAKS


def test_what_still_leaks_is_rejected() -> None:
    leak = Leak(((0, 2),), new=True, position=0.0)
    found = Findings(False, True, leak)
    for leakage, reason in (("regenerate", "critique_leaks"), ("keep", None), ("mask", None)):
        assert rejection(found, CurationSettings(leakage=leakage)) == reason  # pyright: ignore


def test_the_tutor_that_reveals_the_answer_does_not_when_asked_again(
    tmp_path: Path, second_try: SecondTry
) -> None:
    async def run(base_url: str) -> tuple[Critique, Refinement]:
        options = ChatOptions(base_url, "tutor", 0.0, caches_first_turn=True)
        limits = HttpLimits(60.0, 4, allow_private=True)
        backend = HttpTeacher(OPENAI, options, HeaderKey("none"), limits)
        try:
            row = (PROBLEM, draft("26 + 60 = 85, so 82"))
            asker = PlainAsker(backend, 2)
            made = await teach(asker, row, TeacherSettings(), second_try)
        finally:
            await backend.close()
        return made.records  # pyright: ignore

    with tutor_server("answer", tmp_path) as base_url:
        found, refined = asyncio.run(run(base_url))
    assert "83" not in found.text
    assert "26 + 60" in found.text
    assert "\\boxed{83}" in refined.text


def test_it_needs_two_turns(demo: Callable[..., Settings]) -> None:
    with pytest.raises(UserError, match=r"curation\.leakage=regenerate asks again"):
        demo("curation.leakage=regenerate", "teacher.turns=1")


def test_its_chains_are_others(demo: Callable[..., Settings]) -> None:
    keep, anew = (
        stage_folders(demo(f"curation.leakage={how}"), ()) for how in ("keep", "regenerate")
    )
    assert keep.drafts == anew.drafts
    assert keep.refinements != anew.refinements
