"""What went in against what readers see, in the manner of Jepsen: counts of each kind of wrong."""

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from cgd_ray.records import Record, from_table
from cgd_ray.shards import committed_files
from cgd_ray.store import MissingKey, Store


@dataclass(frozen=True, slots=True)
class Violations:
    """Rows that are not as they should be."""

    lost: int = 0
    duplicated: int = 0
    unexpected: int = 0
    corrupt: int = 0

    def __add__(self, other: "Violations") -> "Violations":
        """Add the counts."""
        return Violations(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def check_ids(wanted: Iterable[str], seen: Iterable[str]) -> Violations:
    """Return what is wrong with the ids that readers see."""
    expected, counts = set(wanted), Counter(iter(seen))
    return Violations(
        lost=len(expected - counts.keys()),
        duplicated=sum(counts.values()) - len(counts),
        unexpected=len(counts.keys() - expected),
    )


def check_shards(
    store: Store, folder: str, wanted: Sequence[Record], *, unfinished: bool = False
) -> Violations:
    """Return what is wrong with a stage's committed rows, of all the kinds that were wanted.

    Rows are counted as the commits name them, before readers drop repeated keys, so a row that
    was committed twice is a violation here.

    Args:
        store: of the run.
        folder: of the stage.
        wanted: every row that the stage is to have.
        unfinished: missing rows are no violation, because the work goes on.
    """
    total = Violations()
    for kind in {type(record) for record in wanted}:
        expected = {record.key: record for record in wanted if type(record) is kind}
        rows: list[Record] = []
        for file in committed_files(store, folder, kind):
            try:
                table = pq.read_table(io.BytesIO(store.get(file.key)), schema=kind.SCHEMA)
            except (MissingKey, pa.ArrowInvalid):
                total += Violations(corrupt=len(file.ids))
                continue
            rows += from_table(table, kind)
        found = check_ids(expected, (row.key for row in rows))
        total += Violations(
            lost=0 if unfinished else found.lost,
            duplicated=found.duplicated,
            unexpected=found.unexpected,
            corrupt=_num_changed(expected, rows),
        )
    return total


def _num_changed(expected: Mapping[str, Record], rows: Iterable[Record]) -> int:
    return sum(row.key in expected and row != expected[row.key] for row in rows)
