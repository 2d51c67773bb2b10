"""A data set folder that `datasets.load_dataset` and any parquet reader load."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cgd_ray.errors import UserError
from cgd_ray.export.chains import SCHEMA, Chains

_ROWS_PER_FILE = 50_000


def export_dataset(
    chains: Chains,
    card: str,
    out: Path,
    *,
    tell: Callable[[int], None] = lambda _: None,
    rows_per_file: int = _ROWS_PER_FILE,
) -> None:
    """Write the chains and their card to a new folder, which appears when it is whole.

    Args:
        chains: what is written, a shard at a time.
        card: README.md.
        out: a folder that does not exist yet, or is empty.
        tell: is given the number of rows written so far.
        rows_per_file: of a parquet file.

    Raises:
        UserError: there are no chains, or the folder has something in it.
    """
    check_out(out)
    if not len(chains):
        raise UserError("there is no refinement to export yet: run `cgd generate` first")
    out.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        making.chmod(0o755)
        (making / "data").mkdir()
        (making / "README.md").write_text(card, encoding="utf-8")
        _write(chains.tables(), len(chains), making / "data", tell, rows_per_file)
        making.replace(out)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def check_out(out: Path) -> None:
    """Refuse a place that holds something.

    Raises:
        UserError: it is a file, or a folder that is not empty.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise UserError(f"--out={out} holds something already: name a new folder")


def _write(
    tables: Iterator[pa.Table],
    num_rows: int,
    folder: Path,
    tell: Callable[[int], None],
    rows_per_file: int,
) -> None:
    num_files = -(-num_rows // rows_per_file)
    written = 0
    rest = next(tables, None)
    for number in range(num_files):
        name = f"train-{number:05d}-of-{num_files:05d}.parquet"
        with pq.ParquetWriter(folder / name, SCHEMA, compression="zstd") as file:
            room = rows_per_file
            while room and rest is not None:
                piece = rest.slice(0, room)
                file.write_table(piece)
                room -= piece.num_rows
                written += piece.num_rows
                rest = (
                    rest.slice(piece.num_rows)
                    if piece.num_rows < rest.num_rows
                    else next(tables, None)
                )
                tell(written)
