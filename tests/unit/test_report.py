import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from cgd_ray.report import charts, curves, words
from cgd_ray.report.data import (
    AccuracyBar,
    AnswerRow,
    Difference,
    Evaluation,
    FunnelStep,
    LossPoint,
    ReportData,
    SampleRow,
    TaskLine,
)
from cgd_ray.report.page import render_page, script_json
from cgd_ray.report.svg import ticks

HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "]]>",
    "<!--<script>",
    '"><svg onload=alert(1)>',
    "</style></title></textarea>",
    "$policy ${json} \u2028\u2029 \ud800 \x00",
)

EVALUATION = Evaluation(
    AccuracyBar("base model", 0.133, 0.08, 0.2, 128),
    AccuracyBar("student", 0.391, 0.31, 0.48, 128),
    Difference(0.258, 0.172, 0.344, 0.00001),
)


def sample_row(text: str = "text", status: str = "kept") -> SampleRow:
    return SampleRow(text, text, text, text, text, status, False, True, text)


def report(text: str = "text") -> ReportData:
    return ReportData(
        run=text,
        date=text,
        objective=text,
        student=text,
        teacher=text,
        evaluation=replace(EVALUATION, method=text, base=replace(EVALUATION.base, label=text)),
        funnel=(
            FunnelStep("prompts", 256),
            FunnelStep("drafted", 250, failed=((text, 6),)),
            FunnelStep("kept", 200, failed=(("refusal", 10),), rejected=((text, 30), ("b", 10))),
        ),
        losses=tuple(LossPoint(i, 1 / i, 1e-5) for i in range(1, 101)),
        stage_seconds=((text, 12.0), ("train", 4000.0)),
        rows=(sample_row(text), sample_row(text, "rejected")),
        answers=(AnswerRow(text, text, text, text, False, True),),
        settings_text=text,
        versions=((text, text),),
    )


class Tags(HTMLParser):
    """Collects every element as a browser's tokenizer sees it."""

    def __init__(self):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def parsed(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    return tags


def embedded(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found.group(1))


def between(page: str, start: str, end: str) -> str:
    return page.split(start, 1)[1].split(end, 1)[0]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_adds_no_element_anywhere(text):
    plain, hostile = parsed(render_page(report())), parsed(render_page(report(text)))
    assert [tag for tag, _ in hostile.found] == [tag for tag, _ in plain.found]
    names = {name for _, attrs in hostile.found for name in attrs}
    assert not any(name.startswith("on") or name == "style" for name in names)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_rows_survive_unchanged_as_json(text):
    data = embedded(render_page(report(text)))
    assert data["rows"][0]["draft"] == text
    assert data["answers"][0]["student"] == text


def test_script_json_has_no_character_that_could_end_or_comment_the_script():
    rendered = script_json(["".join(HOSTILE)])
    assert not re.search("[<>&\u2028\u2029]", rendered)
    assert rendered.isascii()


def test_policy_hashes_match_what_is_inlined_and_nothing_else_is_allowed():
    page = render_page(report())
    policy = between(page, 'http-equiv="Content-Security-Policy" content="', '">')
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    for name, text in (
        ("style-src", between(page, "<style>", "</style>")),
        ("script-src", between(page, "<script>", "</script>")),
    ):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert directives[name] == f"'sha256-{digest}'"
    assert directives["default-src"] == "'none'"
    assert directives["base-uri"] == directives["form-action"] == "'none'"
    assert "unsafe" not in policy


def test_page_refers_to_nothing_outside_itself():
    page = render_page(report())
    assert "http://" not in page
    assert "https://" not in page
    assert "url(" not in page
    assert "@import" not in page
    for _, attrs in parsed(page).found:
        for name in ("src", "href", "action", "data", "srcset"):
            assert (attrs.get(name) or "#").startswith(("#", "data:,"))


def test_script_never_parses_text_as_html():
    script = between(render_page(report()), "<script>", "</script>")
    for way in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
    ):
        assert way not in script


def test_funnel_adds_up_in_words():
    page = render_page(report())
    assert "256 in = 200 kept + 16 failed + 40 rejected" in page
    assert "unaccounted" not in page
    assert "does not add up" not in page


def test_funnel_says_where_rows_are_missing():
    data = replace(report(), funnel=(FunnelStep("prompts", 10), FunnelStep("drafted", 7)))
    page = render_page(data)
    assert "does not add up: 10 came in, 7 accounted for" in page
    assert "10 in = 7 drafted + 0 failed + 0 rejected + 3 unaccounted for" in page


def test_result_sentence():
    assert words.result_sentence(EVALUATION).replace("\N{NO-BREAK SPACE}", " ") == (
        "The student answers 39.1 % of 128 test prompts right, the base model 13.3 %: "
        "a difference of +25.8 points (95 % interval +17.2 to +34.4, p < 0.001)."
    )


@pytest.mark.parametrize(("low", "high"), [(-0.03, 0.05), (0.0, 0.05), (-0.05, 0.0)])
def test_result_sentence_says_not_significant(low, high):
    found = replace(EVALUATION, difference=Difference(0.01, low, high, 0.52))
    assert "not significant" in words.result_sentence(found)
    assert "not significant" in render_page(replace(report(), evaluation=found))


def test_several_tasks_have_a_line_each():
    tasks = (
        TaskLine("gsm8k one-pass", 0.25, 0.5, 90.4, 110.0, "+25.0 points, significant"),
        TaskLine("math_500 <one>", 0.1, 0.1, 1200.0, 900.0, "0.0 points, not significant"),
    )
    page = render_page(replace(report(), evaluation=replace(EVALUATION, tasks=tasks)))
    text = " ".join(parsed(page).words)
    assert "gsm8k one-pass 25.0% 50.0% 90 | 110 +25.0 points, significant" in text
    assert "math_500 <one> 10.0% 10.0% 1,200 | 900" in text
    assert "Tokens an answer" in text
    one = render_page(replace(report(), evaluation=replace(EVALUATION, tasks=tasks[:1])))
    assert "Tokens an answer" not in one


def test_significant_loss_is_told_with_a_minus():
    found = replace(EVALUATION, difference=Difference(-0.1, -0.15, -0.05, 0.002))
    sentence = words.result_sentence(found)
    assert "\N{MINUS SIGN}10.0 points" in sentence
    assert "not significant" not in sentence


def test_page_of_an_empty_run_says_what_is_missing():
    page = render_page(ReportData("r", "d", "cgd", "s", "t"))
    text = " ".join(parsed(page).words)
    for words_of_absence in (
        "has not been evaluated",
        "No counts were recorded",
        "No loss was recorded",
        "No stage times were recorded",
        "No rows were included",
        "No test answers were included",
        "No settings were recorded",
        "No versions were recorded",
    ):
        assert words_of_absence in text
    assert embedded(page) == {"rows": [], "answers": []}


@pytest.mark.parametrize("part", ["evaluation", "funnel", "losses", "rows", "answers"])
def test_each_part_may_be_missing_alone(part):
    empty = None if part == "evaluation" else ()
    assert 'class="missing"' in render_page(replace(report(), **{part: empty}))


def test_sample_is_called_a_sample():
    assert "A sample of 2 of the 256 rows" in render_page(report())


def test_filters_count_their_rows():
    page = render_page(report())
    assert 'value="kept"><span>kept <small>1</small>' in page
    assert 'value="fixed"><span>fixed <small>1</small>' in page
    assert 'value="failed"' not in page


@pytest.mark.parametrize("losses", [[0.5], [0.5, 0.5], [0.0, 0.0], [float("nan"), 1.0], [2e9, 1.0]])
def test_loss_chart_of_odd_curves(losses):
    points = [LossPoint(i, loss, 0.0) for i, loss in enumerate(losses)]
    drawn = curves.loss_chart(points) + curves.learning_rate_chart(points)
    assert "nan" not in drawn
    assert 'role="img"' in drawn


def test_losses_that_cannot_be_drawn_are_told():
    bad = tuple(LossPoint(i, float("inf"), 1e-5) for i in range(3))
    assert "3 steps without a finite loss" in render_page(replace(report(), losses=bad))
    with pytest.raises(ValueError, match="no finite loss"):
        curves.loss_chart(bad)


def test_long_loss_curve_stays_small_and_keeps_its_last_point():
    points = [LossPoint(i, 1.0 + i % 7, 1e-5) for i in range(100_000)]
    drawn = curves.loss_chart(points)
    assert len(drawn) < 60_000
    assert " 100.00," in drawn


@pytest.mark.parametrize(
    ("low", "high", "whole", "expected"),
    [
        (0, 100, True, [0, 20, 40, 60, 80, 100]),
        (1, 12, True, [2, 4, 6, 8, 10, 12]),
        (1, 3, True, [1, 2, 3]),
        (0.31, 0.52, False, [0.35, 0.4, 0.45, 0.5]),
        (4, 4, True, [4]),
    ],
)
def test_ticks_are_round_and_inside(low, high, whole, expected):
    assert ticks(low, high, 5, whole) == pytest.approx(expected)


def test_charts_say_their_numbers_and_carry_no_style():
    drawn = (
        charts.accuracy_chart(EVALUATION)
        + charts.difference_chart(EVALUATION)
        + charts.funnel_bar("kept", 200, 1, 2, 256)
    )
    assert drawn.count('role="img"') == drawn.count("<title>") == 3
    assert "200 of 256 rows go on, 1 failed, 2 rejected" in drawn
    assert "style=" not in drawn


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (3599.7, "1 h 0 min"),
        (4320, "1 h 12 min"),
    ],
)
def test_durations(seconds, expected):
    assert words.duration(seconds).replace("\N{NO-BREAK SPACE}", " ") == expected


def test_small_numbers():
    assert words.points(-0.0001) == "0.0"
    assert words.scientific(0) == "0"
    assert words.scientific(1.5e-05).endswith("10⁻⁵")
    assert words.probability(0.0123).endswith("0.012")
