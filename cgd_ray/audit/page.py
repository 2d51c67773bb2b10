"""An audit as a page for a terminal of 100 columns: pure."""

from collections.abc import Iterable, Iterator, Sequence

from cgd_ray.audit.summary import AuditSummary, Figure

# What each figure is, in the order of the page; the definitions are in docs/auditing.md.
_SECTIONS: tuple[tuple[str, dict[str, str]], ...] = (
    (
        "leakage",
        {
            "answer stated": "critiques that hold a value equal to the reference",
            "answer leaked": "... which neither prompt nor draft holds",
            "leak position": "where in the critique: 0 % its start, 100 % its end",
            "judge answers": "critiques that the teacher judged, of those it was asked about",
            "judge sees a leak": "... and calls a leak",
            "judge and rule agree": "... and calls what `answer leaked` calls it",
        },
    ),
    (
        "quality",
        {
            "draft right": "drafts that reach the reference",
            "refinement right": "refinements that do",
            "fix rate": "refinements right, of the drafts that are wrong",
            "harm rate": "refinements wrong, of the drafts that are right",
            "says a verdict": "critiques that call the draft right or wrong",
            "verdict accuracy": "... and are right about it",
            "specificity": "words of the critique that are about this draft alone",
        },
    ),
    (
        "texts",
        {
            "exact duplicate": "critiques that say what an earlier one says",
            "near duplicate": "critiques with most word triples of an earlier one",
            "refinement speaks of draft": "refinements that mention a draft or a critique",
            "draft length": "",
            "critique length": "",
            "refinement length": "",
        },
    ),
    (
        "information",
        {
            "gain, own critique": "what the critique adds to log p(refinement | prompt, draft)",
            "gain, another's critique": "the same with another prompt's critique",
            "gain, own less another's": "row by row",
            "answer, own critique alone": "log p(final answer | critique): no prompt, no draft",
            "answer, another's alone": "the same with another prompt's critique",
            "answer, own less another's": "row by row; far above 0: it gives the answer away",
            "entropy, no critique": "of the student's next token, over the refinement",
            "entropy, own critique": "",
            "entropy, another's critique": "",
            "entropy, own less none": "row by row; below 0: the critique makes the student surer",
        },
    ),
)


def audit_page(
    title: str, summary: AuditSummary, gains: Sequence[Figure] = (), reader: str = ""
) -> str:
    """Return the figures as aligned lines.

    Args:
        title: what was audited.
        summary: of its chains.
        gains: the figures of judge and information gain; none if they were not asked for.
        reader: the model that read the refinements for them, "base" or "student".
    """
    figures = {figure.name: figure for figure in (*summary.figures, *gains)}
    of = f"{summary.num_chains:,} chains, {summary.num_with_reference:,} with a reference"
    rows = [("", "value", "95 % interval", "rows", "")]
    for section, names in _SECTIONS:
        shown = [(figures[name], said) for name, said in names.items() if name in figures]
        if shown:
            by = f", read by {reader}" if section == "information" else ""
            rows.append((f"{section}{by}", "", "", "", ""))
            rows += [_cells(figure, said) for figure, said in shown]
    return "\n".join([f"{title}  {of}", "", *_aligned(rows)])


def _cells(figure: Figure, said: str) -> tuple[str, ...]:
    value, interval = "-", ""
    if figure.value is not None:
        value = f"{_number(figure.value, figure)} {_UNITS[figure.unit]}"
    if figure.low is not None and figure.high is not None:
        low, high = (_number(bound, figure) for bound in (figure.low, figure.high))
        interval = f"{low} to {high}"
    return f"  {figure.name}", value, interval, f"{figure.num_rows:,}", said


_UNITS = {"share": "%", "words": "words", "nats": "nats"}


def _number(value: float, figure: Figure) -> str:
    if figure.unit == "share":
        return f"{100 * value:.1f}"
    if figure.unit == "words":
        return f"{value:.1f}"
    differs = figure.name.startswith("gain") or " less " in figure.name
    return f"{value:+.3f}" if differs else f"{value:.3f}"


def _aligned(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yield lines: the first and the last column to the left, numbers to the right."""
    cells = list(rows)
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    for row in cells:
        name, *numbers, said = row
        middle = [cell.rjust(w) for cell, w in zip(numbers, widths[1:-1], strict=True)]
        yield "  ".join([name.ljust(widths[0]), *middle, said]).rstrip()
