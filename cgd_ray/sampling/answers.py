"""What an engine answers, as Arrow columns beside the ones that came in."""

import pyarrow as pa
import pyarrow.compute as pc

ANSWERS = pa.schema(
    [
        pa.field("generated_text", pa.string(), nullable=False),
        pa.field("num_generated_tokens", pa.int64(), nullable=False),
        pa.field("__inference_error__", pa.string(), nullable=False),  # "": the engine answered
    ]
)
QUESTION = ("tokenized_prompt", "sampling_params")  # what the engine consumes
_QUARANTINED = "quarantined: "


def row_ids(rows: pa.Table) -> list[str]:
    """Return the draft ids of rows with `prompt_id` and `draft_index`."""
    index = rows["draft_index"].cast(pa.string())
    ids = pc.call_function("binary_join_element_wise", [rows["prompt_id"], index, "/"])
    return ids.to_pylist()


def with_answers(rows: pa.Table, answers: pa.Table) -> pa.Table:
    """Return N rows with their N answers in place of the question; other columns untouched.

    Of the question its length stays, in `num_prompt_tokens`.
    """
    columns = {name: rows[name] for name in rows.column_names if name not in QUESTION}
    lengths = pc.call_function("list_value_length", [rows["tokenized_prompt"]])
    counted = {"num_prompt_tokens": lengths.cast(pa.int64())}
    return pa.table(columns | counted | {name: answers[name] for name in ANSWERS.names})


def quarantined(num_engines: int) -> pa.Table:
    """Return the answer to a poison row.

    Args:
        num_engines: engines that the row has brought down.
    """
    note = f"{_QUARANTINED}alone in the engine, this row brought it down {num_engines} times"
    return pa.table([[""], [0], [note]], schema=ANSWERS)


def is_quarantined(error: str) -> bool:
    """Return whether an `__inference_error__` is the note of a poison row."""
    return error.startswith(_QUARANTINED)
