"""The report of a run as one HTML page that needs nothing but itself.

All text from models and data sets is untrusted. Here it is escaped; the rows travel as JSON and
`page.js` shows them as text nodes only; and the page's content security policy lets no other
style, script or request through.
"""

import json
from collections.abc import Iterable, Sequence
from html import escape
from string import Template

from cgd_ray.report import sections
from cgd_ray.report.data import AnswerRow, ReportData, SampleRow, verdict
from cgd_ray.report.document import facts, html_document, page_part
from cgd_ray.report.words import result_sentence

_JSON_ESCAPES = str.maketrans(
    {c: f"\\u{ord(c):04x}" for c in ("<", ">", "&", "\N{LINE SEPARATOR}", "\u2029")}
)


def render_page(data: ReportData) -> str:
    """Return the whole page, to be written as UTF-8 to a file of any name."""
    about = (
        ("Date", data.date),
        ("Objective", data.objective),
        ("Student", data.student),
        ("Teacher", data.teacher),
    )
    body = Template(page_part("page.html")).substitute(
        run=escape(data.run),
        result=escape(result_sentence(data.evaluation)),
        facts=facts(about),
        funnel=sections.funnel(data.funnel),
        accuracy=sections.accuracy(data.evaluation),
        training=sections.training(data.losses),
        stages=sections.stages(data.stage_seconds),
        rows=sections.rows(data.rows, data.funnel),
        answers=sections.answers(data.answers),
        settings=sections.settings(data.settings_text, data.versions),
        json=script_json({"rows": _sample_rows(data.rows), "answers": _answer_rows(data.answers)}),
    )
    style, script = page_part("page.css"), page_part("page.js")
    return html_document(f"{data.run}: report", style, body, script)


def script_json(value: object) -> str:
    """Return JSON that stays inert inside a script element, whatever text it holds."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False).translate(_JSON_ESCAPES)


def _sample_rows(rows: Sequence[SampleRow]) -> list[dict[str, str | None]]:
    return [
        {
            "prompt": row.prompt,
            "reference": row.reference,
            "draft": row.draft,
            "critique": row.critique,
            "refinement": row.refinement,
            "status": row.status,
            "reason": row.reason.replace("_", " ") if row.reason else None,
            "draft_verdict": verdict(row.draft_correct),
            "refinement_verdict": verdict(row.refinement_correct),
        }
        for row in rows
    ]


def _answer_rows(rows: Iterable[AnswerRow]) -> list[dict[str, str | None]]:
    return [
        {
            "prompt": row.prompt,
            "reference": row.reference,
            "base": row.base,
            "student": row.student,
            "outcome": row.outcome,
            "base_verdict": verdict(row.base_correct),
            "student_verdict": verdict(row.student_correct),
        }
        for row in rows
    ]
