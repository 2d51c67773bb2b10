"""A study's accuracies as one SVG file, for documents: a panel a match. Pure."""

from collections.abc import Iterator
from html import escape

from cgd_ray.report.svg import ticks
from cgd_ray.study.results import ArmResult, StudyResult
from cgd_ray.study.table import MATCHED

_WIDTH, _LEFT, _RIGHT = 760, 170, 30  # px; the names of arms are at the left
_ROW, _HEAD, _AXIS = 24, 58, 44
_STYLE = (
    "text{font:13px -apple-system,'Segoe UI',Roboto,'Liberation Sans',Arial,sans-serif;"
    "fill:#1c2024}.title{font-size:14px;font-weight:600}.soft{fill:#59626b;font-size:12px}"
    ".grid{stroke:#e4e4de}.bar{stroke:#1c2024;stroke-width:1.5}.one{fill:#7f8891}"
    ".it{fill:#1f5fa8}"
)


def figure(result: StudyResult, task: int = 0) -> str:
    """Return an SVG file: each arm's accuracy with its 95 % interval, the reference in colour.

    Args:
        result: of a study with at least one finished match.
        task: index of the task that is drawn.
    """
    panels: list[str] = []
    top = 0
    for match in result.matches:
        arms = result.of(match)
        panels += _panel(arms, task, result, top)
        top += _HEAD + _ROW * len(arms) + _AXIS
    first = result.arms[0].tasks[task]
    title = f"{result.study}: accuracy on {first.task}, {first.num_prompts} problems"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top}" '
        f'viewBox="0 0 {_WIDTH} {top}" role="img"><title>{escape(title)}</title>'
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#fdfdfb"/>'
        f"{''.join(panels)}</svg>\n"
    )


def _panel(arms: tuple[ArmResult, ...], task: int, result: StudyResult, top: int) -> Iterator[str]:
    highest = max(arm.tasks[task].accuracy.high for arm in result.arms)
    most = min(1.0, 1.05 * highest)
    bottom = top + _HEAD + _ROW * len(arms)

    def x(value: float) -> float:
        return _LEFT + value / most * (_WIDTH - _LEFT - _RIGHT)

    named = f"{result.study}, {MATCHED[arms[0].match]}: {arms[0].tasks[task].task}"
    yield f'<text x="16" y="{top + 28}" class="title">{escape(named)}</text>'
    for value in ticks(0, 100 * most, 6):
        at = x(value / 100)
        yield f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top + 44}" y2="{bottom}" class="grid"/>'
        place = f'x="{at:.1f}" y="{bottom + 18}"'
        yield f'<text {place} class="soft" text-anchor="middle">{value:g} %</text>'
    for index, arm in enumerate(arms):
        y, a = top + _HEAD + _ROW * index, arm.tasks[task].accuracy
        css = "it" if arm.arm == result.reference else "one"
        yield f'<text x="16" y="{y + 4}">{escape(arm.arm)}</text>'
        yield f'<line x1="{x(a.low):.1f}" x2="{x(a.high):.1f}" y1="{y}" y2="{y}" class="bar"/>'
        yield f'<circle cx="{x(a.mean):.1f}" cy="{y}" r="5" class="{css}"/>'
