"""Information gain: what is read, the arithmetic of it, and the plot."""

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import torch
from torch.nn.functional import cross_entropy

from cgd_ray.audit.alone import alone_figures, alone_probes, build_alone_messages
from cgd_ray.audit.chart import entropy_chart
from cgd_ray.audit.gain import (
    ALONE,
    CONTEXTS,
    Context,
    Probe,
    TargetReading,
    entropy_by_part,
    gain_figures,
    probes,
)
from cgd_ray.audit.student import read_targets
from cgd_ray.audit.summary import Figure
from cgd_ray.examples.chat import ChatTokenizer
from cgd_ray.examples.objectives import render
from cgd_ray.examples.transforms import donors
from cgd_ray.records import Example
from tests.support.merging_tokenizer import merging_tokenizer
from tests.support.records import refinement
from tests.support.tiny_llama import VOCABULARY, tiny_llama
from tests.support.tutor_sample import CHAINS


def example(length: int, num_targets: int, seed: int) -> Example:
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (length,), generator=draw).tolist()
    mask = (0,) * (length - num_targets) + (1,) * num_targets
    return Example(f"e{seed}", "cgd", tuple(ids), mask)


def reading(row: str, context: Context, log_ps: Sequence[float], entropies: Sequence[float]):
    return TargetReading(row, context, tuple(log_ps), tuple(entropies))


def test_a_batch_reads_each_row_as_if_it_were_alone() -> None:
    model = tiny_llama("sdpa").eval()
    examples = [example(40, 5, 1), example(23, 20, 2), example(9, 1, 3)]
    asked = [Probe(e.id, "own", e) for e in examples]
    found = {r.draft_id: r for batch in read_targets(model, asked) for r in batch}
    for one in examples:
        ids = torch.tensor([one.input_ids])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, :-1]
        targets = torch.tensor(one.loss_mask[1:], dtype=torch.bool)
        losses = cross_entropy(logits[targets], ids[0, 1:][targets], reduction="none")
        entropies = torch.distributions.Categorical(logits=logits[targets]).entropy()
        assert found[one.id].log_ps == pytest.approx([-x for x in losses.tolist()], abs=1e-5)
        assert found[one.id].entropies == pytest.approx(entropies.tolist(), abs=1e-5)


def test_what_is_read_is_what_is_trained() -> None:
    tokenizer = ChatTokenizer(merging_tokenizer())
    chosen = probes(CHAINS, 6, tokenizer, 4_096, 1)
    assert [len(row) for row in chosen] == [3] * 6
    by_id = {chain.draft.id: chain for chain in CHAINS}
    for row in chosen:
        assert tuple(probe.context for probe in row) == CONTEXTS
        targets = {
            tuple(t for t, m in zip(p.example.input_ids, p.example.loss_mask, strict=True) if m)
            for p in row
        }
        assert len(targets) == 1, "the same refinement in every context"
        chain = by_id[row[0].draft_id]
        for probe, objective in zip(row, ("cgd_no_critique", "cgd"), strict=False):
            rendered = render(objective, chain)
            assert rendered
            assert probe.example.input_ids == tuple(tokenizer.encode_example(*rendered)[0])
        assert row[2].example.input_ids != row[1].example.input_ids
        assert row[2].example.critique_transform == "shuffled"


def test_a_larger_sample_holds_a_smaller_one_and_what_is_too_long_is_passed_over() -> None:
    tokenizer = ChatTokenizer(merging_tokenizer())
    few, more = (probes(CHAINS, n, tokenizer, 4_096, 1) for n in (5, 9))
    assert more[:5] == few
    assert probes(CHAINS, 5, tokenizer, 4_096, 2) != few
    lengths = sorted(max(len(p.example.input_ids) for p in row) for row in more)
    limit = lengths[4]
    short = probes(CHAINS, 100, tokenizer, limit, 1)
    assert short
    assert all(len(p.example.input_ids) <= limit for row in short for p in row)
    assert probes(CHAINS[:1], 5, tokenizer, 4_096, 1) == [], "nobody to take a critique from"


def test_gains_are_means_over_rows_of_means_over_tokens() -> None:
    readings = [
        reading("a", "none", [-2.0, -4.0], [1.0, 3.0]),
        reading("a", "own", [-1.0, -1.0], [0.5, 0.5]),
        reading("a", "another's", [-2.0, -5.0], [2.0, 2.0]),
        reading("b", "none", [-1.0], [1.0]),
        reading("b", "own", [-1.0], [0.5]),
        reading("b", "another's", [-0.5], [1.0]),
        reading("c", "none", [-9.0], [9.0]),  # not read in every context: left out
    ]
    figures = {figure.name: figure for figure in gain_figures(readings)}
    assert figures["gain, own critique"].value == pytest.approx((2.0 + 0.0) / 2)
    assert figures["gain, another's critique"].value == pytest.approx((-0.5 + 0.5) / 2)
    assert figures["gain, own less another's"].value == pytest.approx((2.5 - 0.5) / 2)
    assert figures["entropy, no critique"].value == pytest.approx((2.0 + 1.0) / 2)
    assert figures["entropy, own critique"].value == 0.5
    assert figures["entropy, own less none"].value == pytest.approx(0.5 - 1.5)
    assert {figure.num_rows for figure in figures.values()} == {2}
    low, high = figures["gain, own critique"].low, figures["gain, own critique"].high
    assert (low, high) == (0.0, 2.0)


def test_the_answer_is_read_behind_a_critique_and_nothing_else() -> None:
    tokenizer = ChatTokenizer(merging_tokenizer())
    right = [c for c in CHAINS if f"\\boxed{{{c.prompt.reference}}}" in c.refinement.text]
    chosen = {row[0].draft_id for row in probes(right, 6, tokenizer, 4_096, 1)}
    found = alone_probes(right, chosen, tokenizer, 4_096, 1)
    assert [probe.context for probe in found] == [*ALONE] * 6
    assert {probe.draft_id for probe in found} == chosen
    by_id = {chain.draft.id: chain for chain in CHAINS}
    given = donors(right, 1)
    for own, other in zip(found[::2], found[1::2], strict=True):
        chain = by_id[own.draft_id]
        for probe, critique in ((own, chain.critique.text), (other, given[own.draft_id])):
            asked = build_alone_messages(critique)
            assert asked[0]["content"].count(critique) == 1
            expected = tokenizer.encode_example(asked, chain.prompt.reference or "")
            masked = probe.example.loss_mask
            assert (list(probe.example.input_ids), masked.index(1)) == expected
            assert sum(masked) == len(masked) - masked.index(1)


def test_what_has_no_final_answer_or_is_too_long_is_not_read_behind_its_critique() -> None:
    tokenizer = ChatTokenizer(merging_tokenizer())
    without = replace(CHAINS[0], refinement=refinement("It cannot be said.", draft_id="p00/0"))
    chains = [without, *CHAINS[1:4]]
    chosen = {chain.draft.id for chain in chains}
    found = alone_probes(chains, chosen, tokenizer, 4_096, 1)
    assert {probe.draft_id for probe in found} == chosen - {without.draft.id}
    longest = max(len(probe.example.input_ids) for probe in found)
    fewer = alone_probes(chains, chosen, tokenizer, longest - 1, 1)
    assert 0 < len(fewer) < len(found)
    assert len(fewer) % 2 == 0


def test_braces_in_a_critique_are_text() -> None:
    (told,) = build_alone_messages("a {critique} in {0}")
    assert told["content"].count("a {critique} in {0}") == 1
    assert "problem that is not shown here:\n\na {critique} in {0}\n\nWhat" in told["content"]


def test_answers_alone_are_compared_row_by_row_and_apart_from_the_refinements() -> None:
    refinements = [reading("a", context, [-9.0], [9.0]) for context in CONTEXTS]
    answers = [
        reading("a", "own alone", [-1.0, -2.0], [1.0, 1.0]),
        reading("a", "another's alone", [-4.0, -5.0], [1.0, 1.0]),
        reading("b", "own alone", [-3.0], [1.0]),
        reading("b", "another's alone", [-3.0], [1.0]),
        reading("c", "own alone", [-7.0], [1.0]),  # not behind another's: left out
    ]
    figures = {figure.name: figure for figure in alone_figures([*refinements, *answers])}
    assert figures["answer, own critique alone"].value == pytest.approx((-1.5 - 3.0) / 2)
    assert figures["answer, another's alone"].value == pytest.approx((-4.5 - 3.0) / 2)
    difference = figures["answer, own less another's"]
    assert (difference.value, difference.low, difference.high) == (1.5, 0.0, 3.0)
    assert {figure.num_rows for figure in figures.values()} == {2}
    assert gain_figures([*answers, *refinements]) == gain_figures(refinements)
    unknown = alone_figures(refinements)
    assert {(figure.value, figure.num_rows) for figure in unknown} == {(None, 0)}


def test_entropy_by_part_gives_every_row_one_voice_in_a_part() -> None:
    long = [float(part) for part in range(10) for _ in range(3)]
    readings = [
        reading(row, context, [0.0] * len(entropies), entropies)
        for row, entropies in (("a", long), ("b", [5.0, 7.0]))
        for context in CONTEXTS
    ]
    parts = entropy_by_part(readings)["own"]
    assert parts[0].value == 0.0
    # Two tokens stand in the middle of their halves.
    assert [p.num_rows for p in parts] == [1, 1, 2, 1, 1, 1, 1, 2, 1, 1]
    assert parts[2].value == pytest.approx((2.0 + 5.0) / 2)
    assert parts[7].value == pytest.approx((7.0 + 7.0) / 2)
    assert parts[9].value == 9.0


def test_the_plot_draws_each_context_to_scale() -> None:
    def line(values: Sequence[float]) -> tuple[Figure, ...]:
        return tuple(Figure("", "nats", v, v - 0.1, v + 0.1, 3) for v in values)

    parts: dict[Context, Sequence[Figure]] = {
        "none": line([1.0] * 10),
        "own": line([0.5] * 10),
        "another's": line([1.0] * 10),
    }
    root = ElementTree.fromstring(entropy_chart("a <b> & c", parts))
    space = "{http://www.w3.org/2000/svg}"
    assert root.findtext(f"{space}title") == "a <b> & c"
    drawn = [p.get("points", "").split() for p in root.iter(f"{space}polyline")]
    heights = [[float(point.split(",")[1]) for point in points] for points in drawn]
    assert [len(points) for points in drawn] == [10, 10, 10]
    none, own, other = (h[0] for h in heights)
    assert none == other < own, "less entropy is further down"
    zero = max(float(line.get("y1", 0)) for line in root.iter(f"{space}line"))
    assert (zero - own) / (zero - none) == pytest.approx(0.5, abs=0.01)
    names = [t for t in root.iter(f"{space}text") if "critique" in (t.text or "")]
    places = sorted(float(name.get("y", 0)) for name in names)
    names_of_lines = {name.text for name in names}
    assert len(names) == len(names_of_lines) == 3
    assert all(b - a >= 15 for a, b in itertools.pairwise(places)), "none on another"
    assert places[-1] <= zero
    flat = entropy_chart("t", {c: line([0.0] * 10) for c in CONTEXTS})
    assert not re.search(r"nan|inf", flat)
    texts = ElementTree.fromstring(flat).iter(f"{space}text")
    assert all(float(t.get("y", 0)) <= zero + 4 for t in texts if t.text in names_of_lines)
    assert math.isclose(none, heights[0][9])
