"""The embedded student, at its real size: critiques tell it something, others' tell it nothing."""

from dataclasses import replace

import pytest

from cgd_ray.audit.gain import gain_figures, probes
from cgd_ray.audit.student import load_reader, read_targets
from cgd_ray.audit.summary import Figure
from cgd_ray.examples.objectives import Chain
from cgd_ray.settings import EMBEDDED_STUDENT
from cgd_ray.student import chat_tokenizer, student_source
from tests.support.tutor_sample import CHAINS, ROWS

NUM_CHAINS = 16
NUM_LEAKING = 6


def specific() -> list[Chain]:
    """Return the sample's chains with the tutor's own words about a step that is to be redone."""
    pairs = zip(CHAINS, ROWS, strict=True)
    return [c for c, row in pairs if not row["planted"] and not row["label"]["draft_right"]]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return student_source(EMBEDDED_STUDENT, tmp_path_factory.mktemp("work"))


def read_by(source: str, chains: list[Chain], number: int) -> dict[str, Figure]:
    chosen = probes(chains, number, chat_tokenizer(source), 1_024, 1)
    assert len(chosen) == number
    asked = [probe for row in chosen for probe in row]
    read = [reading for batch in read_targets(load_reader(source), asked) for reading in batch]
    return {figure.name: figure for figure in gain_figures(read)}


@pytest.fixture(scope="module")
def figures(source: str) -> dict[str, Figure]:
    return read_by(source, specific(), NUM_CHAINS)


def test_a_critique_informs_of_its_own_draft_alone(figures: dict[str, Figure]) -> None:
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


def test_a_critique_that_leaks_tells_more_by_itself(
    source: str, figures: dict[str, Figure]
) -> None:
    def leaking(chain: Chain) -> Chain:
        text = f"{chain.critique.text} The answer is {chain.prompt.reference}."
        return replace(chain, critique=replace(chain.critique, text=text))

    leaks = read_by(source, [leaking(chain) for chain in specific()], NUM_LEAKING)
    # The first of the same random order: a larger sample holds a smaller one.
    honest = read_by(source, specific(), NUM_LEAKING)
    name = "gain, critiques alone"
    assert leaks[name].value > honest[name].value + 0.05
    assert figures[name].low > 0, "the critiques name the problem's numbers"
