"""What the teacher is given, as a table: prompts beside their drafts."""

from collections.abc import Sequence

import pyarrow as pa

from cgd_ray.records import Draft, Prompt, from_rows, to_table

TEACHER_ROWS = pa.schema(
    [
        pa.field("prompt_record", pa.struct(list(Prompt.SCHEMA)), nullable=False),
        pa.field("draft_record", pa.struct(list(Draft.SCHEMA)), nullable=False),
    ]
)

TeacherRow = tuple[Prompt, Draft]


def teacher_rows(prompts: Sequence[Prompt], drafts: Sequence[Draft]) -> pa.Table:
    """Return N prompts and their N drafts as a table."""
    columns = [
        to_table(prompts, Prompt).to_struct_array(),
        to_table(drafts, Draft).to_struct_array(),
    ]
    return pa.table(columns, schema=TEACHER_ROWS)


def read_teacher_rows(table: pa.Table) -> list[TeacherRow]:
    """Return the prompts and drafts of a table."""
    prompts = from_rows(table["prompt_record"].to_pylist(), Prompt)
    drafts = from_rows(table["draft_record"].to_pylist(), Draft)
    return list(zip(prompts, drafts, strict=True))
