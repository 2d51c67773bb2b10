"""The embedded student, at its real size: critiques tell it something, others' tell it nothing."""

import pytest

from cgd_ray.audit.gain import gain_figures, probes
from cgd_ray.audit.student import load_reader, read_targets
from cgd_ray.examples.objectives import Chain
from cgd_ray.settings import EMBEDDED_STUDENT
from cgd_ray.student import chat_tokenizer, student_source
from tests.support.tutor_sample import CHAINS, ROWS

NUM_CHAINS = 16


def specific() -> list[Chain]:
    """Return the sample's chains with the tutor's own words about a step that is to be redone."""
    pairs = zip(CHAINS, ROWS, strict=True)
    return [c for c, row in pairs if not row["planted"] and not row["label"]["draft_right"]]


def test_a_critique_informs_of_its_own_draft_alone(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    source = student_source(EMBEDDED_STUDENT, tmp_path_factory.mktemp("work"))
    chosen = probes(specific(), NUM_CHAINS, chat_tokenizer(source), 1_024, 1)
    assert len(chosen) == NUM_CHAINS
    asked = [probe for row in chosen for probe in row]
    read = [reading for batch in read_targets(load_reader(source), asked) for reading in batch]
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
