"""The embedded student, at its real size: critiques tell it something, others' tell it nothing."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from cgd_ray.audit.alone import alone_figures, alone_probes
from cgd_ray.audit.gain import gain_figures, probes
from cgd_ray.audit.student import load_reader, read_targets
from cgd_ray.audit.summary import Figure
from cgd_ray.examples.chat import ChatTokenizer
from cgd_ray.examples.objectives import Chain
from cgd_ray.settings import EMBEDDED_STUDENT
from cgd_ray.student import chat_tokenizer, student_source
from tests.support.tutor_sample import CHAINS, ROWS

NUM_CHAINS = 16


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return student_source(EMBEDDED_STUDENT, tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def reader(source: str) -> Any:
    return load_reader(source)


def specific() -> list[Chain]:
    """Return the sample's chains with the tutor's own words about a step that is to be redone."""
    pairs = zip(CHAINS, ROWS, strict=True)
    return [c for c, row in pairs if not row["planted"] and not row["label"]["draft_right"]]


def telling(chain: Chain) -> Chain:
    """Return the chain with a critique that says the same and the answer."""
    text = f"{chain.critique.text} The answer is {chain.prompt.reference}."
    return replace(chain, critique=replace(chain.critique, text=text))


def answers_alone(
    chains: Sequence[Chain], tokenizer: ChatTokenizer, reader: Any
) -> tuple[Figure, ...]:
    asked = alone_probes(chains, {chain.draft.id for chain in chains}, tokenizer, 1_024, 1)
    return alone_figures(r for batch in read_targets(reader, asked) for r in batch)


def test_a_critique_informs_of_its_own_draft_alone(source: str, reader: Any) -> None:
    chosen = probes(specific(), NUM_CHAINS, chat_tokenizer(source), 1_024, 1)
    assert len(chosen) == NUM_CHAINS
    asked = [probe for row in chosen for probe in row]
    read = [reading for batch in read_targets(reader, asked) for reading in batch]
    figures = {figure.name: figure for figure in gain_figures(read)}
    own, other = figures["gain, own critique"], figures["gain, another's critique"]
    difference = figures["gain, own less another's"]
    assert own.num_rows == NUM_CHAINS
    for figure in (own, other, difference):
        assert figure.low is not None
        assert figure.high is not None
        assert figure.value is not None
        assert figure.low < figure.value < figure.high
    assert own.low > 0.05
    assert difference.low > 0.05
    assert other.low < 0 < other.high < own.low


def test_a_critique_that_states_the_answer_tells_it_without_prompt_and_draft(
    source: str, reader: Any
) -> None:
    # As the tutor's critiques are when they give no result away.
    pairs = zip(CHAINS, ROWS, strict=True)
    silent = [c for c, row in pairs if c in specific() and row["reveal"] == "none"][:NUM_CHAINS]
    tokenizer = chat_tokenizer(source)

    def told(chains: Sequence[Chain]) -> tuple[Figure, ...]:
        return answers_alone(chains, tokenizer, reader)

    own, _, difference = told(silent)
    stated, _, gives_away = told([telling(chain) for chain in silent])
    assert difference.num_rows == gives_away.num_rows == len(silent) >= 8
    for figure in (own, difference, stated, gives_away):
        assert figure.low is not None
        assert figure.high is not None
    assert difference.low < 0.2, "numbers to redo are no answer"
    assert gives_away.low > 0.5
    assert gives_away.low > difference.high
    assert stated.low > own.high
