"""A study's accuracies as one SVG file, for documents: a chart a match. Pure."""

from html import escape

from cgd_ray.report.svg import svg_file
from cgd_ray.study.charts import NUM_COLOURS, accuracy_chart, accuracy_height
from cgd_ray.study.results import StudyResult
from cgd_ray.study.table import MATCHED

_WIDTH, _MARGIN, _HEAD = 760, 24, 44  # px; half of "100 %" fits in the margin
_STYLE = (
    "svg{overflow:visible}.tick{fill:#59626b;font-size:12px}"
    ".whisker{stroke:#1c2024;stroke-width:1.5}circle{fill:#7f8891}"
)


def figure(result: StudyResult, task: int = 0) -> str:
    """Return an SVG file: each arm's accuracy with its 95 % interval, the reference in colour.

    Args:
        result: of a study with at least one finished match.
        task: index of the task that is drawn.
    """
    first = result.arms[0].tasks[task]
    highest = max(arm.tasks[task].accuracy.high for arm in result.arms)
    style, body, top = _STYLE, "", 0
    for match in result.matches:
        arms = result.of(match)
        named = f"{result.study}, {MATCHED[match]}: {first.task}"
        rows = [(arm.arm, arm.tasks[task].accuracy) for arm in arms]
        height = accuracy_height(len(rows))
        body += (
            f'<text x="{_MARGIN}" y="{top + 28}" class="title">{escape(named)}</text>'
            f'<svg class="{match}" x="{_MARGIN}" y="{top + _HEAD}" '
            f'width="{_WIDTH - 2 * _MARGIN}" height="{height}">'
            f"{accuracy_chart(rows, named, highest)}</svg>"
        )
        names = [arm.arm for arm in arms]
        if result.reference in names:
            colour = names.index(result.reference) % NUM_COLOURS
            style += f".{match} .arm-{colour}{{fill:#1f5fa8}}"
        top += _HEAD + height + _MARGIN
    title = f"{result.study}: accuracy on {first.task}, {first.num_prompts} problems"
    return svg_file(title, _WIDTH, top, style, body)
