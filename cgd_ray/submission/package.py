"""What goes to the cluster: our own source and the run file, as one small zip.

Its name is a hash of its content, so a cluster that has it is sent nothing. The files are of kinds
that are allowed by name: environments, data, keys and version control cannot slip in.
"""

import hashlib
import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cgd_ray.errors import UserError

_PACKAGE = Path(__file__).resolve().parents[1]
_ENDINGS = (".py", ".html", ".css", ".js")
_MAX_BYTES = 16 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold


@dataclass(frozen=True, slots=True)
class Package:
    """A zip as Ray unpacks it into the working directory of a job."""

    name: str  # ends in a hash of the content
    data: bytes
    num_files: int

    @property
    def uri(self) -> str:
        """Its name in a `runtime_env`."""
        return f"gcs://{self.name}"


def is_packed(name: str) -> bool:
    """Return whether a file of our source, by its relative path, goes to the cluster."""
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__pycache__")) for part in path.parts)
    return path.suffix in _ENDINGS and not hidden


def run_file_name(path: Path, here: Path) -> str:
    """Return the name of a run file in the job's folder: as typed, where it lies below `here`."""
    whole, below = (here / path).resolve(), here.resolve()
    return whole.relative_to(below).as_posix() if whole.is_relative_to(below) else whole.name


def pack(run_file: str, text: str, source: Path = _PACKAGE) -> Package:
    """Return the package of a run.

    Args:
        run_file: relative name of the run file in the job's folder.
        text: what the run file holds.
        source: folder of the Python package, whose name it keeps.

    Raises:
        UserError: it is larger than a cluster should be sent.
    """
    files = {run_file: text.encode()}
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source.parent).as_posix()
        if is_packed(name) and path.is_file() and not path.is_symlink():
            files[name] = path.read_bytes()
    return package_of(files.items())


def package_of(files: Iterable[tuple[str, bytes]]) -> Package:
    """Return files, by relative name, as a package.

    Raises:
        UserError: it is larger than a cluster should be sent.
    """
    listed = sorted(files)
    largest = max(listed, key=lambda item: len(item[1]))
    if sum(len(data) for _, data in listed) > _MAX_BYTES:
        raise UserError(
            f"the job's files have over {_MAX_BYTES >> 20} MiB (the largest is {largest[0]}): put "
            "data on s3:// or on every node, not into the run file or the package"
        )
    buffer, content = io.BytesIO(), hashlib.sha256()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in listed:
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
            content.update(f"{len(name)} {len(data)} {name}".encode() + data)
    name = f"_ray_pkg_{content.hexdigest()[:32]}.zip"
    return Package(name, buffer.getvalue(), len(listed))
