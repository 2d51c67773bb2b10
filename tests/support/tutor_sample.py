"""Fifty of the tutor's critiques, of written drafts and all its levels, labelled by hand."""

import json
from collections.abc import Sequence
from typing import Any

from cgd_ray.audit.rows import AuditRow, audit_rows
from cgd_ray.evaluation.grader_pool import GraderPool
from cgd_ray.examples.objectives import Chain
from tests.conftest import GOLDEN
from tests.support.records import critique, draft, prompt, refinement

ROWS: list[dict[str, Any]] = json.loads((GOLDEN / "tutor_critiques.json").read_text())


def chain(number: int, row: dict[str, Any]) -> Chain:
    """Return a row of the sample as a chain; its drafts are of prompts of their own."""
    key = f"p{number:02d}/0"
    return Chain(
        prompt(row["prompt"], id=key[:-2], reference=row["reference"]),
        draft(row["draft"], id=key, prompt_id=key[:-2]),
        critique(row["critique"], draft_id=key),
        refinement(row["refinement"], draft_id=key),
    )


CHAINS = [chain(number, row) for number, row in enumerate(ROWS)]


def audited(chains: Sequence[Chain]) -> list[AuditRow]:
    with GraderPool(1) as pool:
        return audit_rows(chains, pool.grade_all)
