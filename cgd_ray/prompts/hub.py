"""Data sets of the Hugging Face hub: `hf:owner/name?config=..&split=..&revision=..`.

`HF_TOKEN`, `HF_ENDPOINT` and the usual cache folder apply. A download is kept in that cache, so a
run that is started again reads it from disk.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qsl

import httpx2
import pyarrow as pa

from cgd_ray.errors import UserError
from cgd_ray.prompts.locations import HUB
from cgd_ray.prompts.rows import Row

if TYPE_CHECKING:
    from datasets import Dataset

_OPTIONS = ("config", "split", "revision")
_ROWS_AT_A_TIME = 1024
_LONGEST_REASON = 200  # characters
_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class HubSource:
    """A split of a data set of the hub."""

    name: str  # owner/name
    config: str | None
    split: str
    revision: str | None  # branch, tag or commit


def parse_hub(location: str, setting: str) -> HubSource:
    """Return what a location names; its split is the setting's own where it names none.

    Raises:
        UserError: it is malformed.
    """
    name, _, query = location.removeprefix(HUB).partition("?")
    options = dict(parse_qsl(query))
    unknown = [option for option in options if option not in _OPTIONS]
    if unknown or not _NAME.fullmatch(name):
        raise UserError(
            f"{setting}={location} is not of the form hf:owner/name?config=..&split=..&revision=.."
        )
    split = options.get("split", "train" if setting == "prompts.train" else "test")
    return HubSource(name, options.get("config"), split, options.get("revision"))


def hub_version(location: str, setting: str) -> str:
    """Return the commit of a data set: what changes when its content does.

    Raises:
        UserError: the hub cannot be reached, or has no such data set.
    """
    source = parse_hub(location, setting)
    if source.revision and _COMMIT.fullmatch(source.revision):
        return source.revision
    from huggingface_hub import HfApi

    try:
        found = HfApi().dataset_info(source.name, revision=source.revision).sha
    except (OSError, ValueError, httpx2.HTTPError) as error:
        raise UserError(
            f"{setting}={location}: the hub does not tell its commit ({_in_one_line(error)}): "
            "check the name, HF_TOKEN and HF_ENDPOINT, or name ?revision=<40 hex digits> of a "
            "cached copy"
        ) from error
    if found is None:
        raise UserError(f"{setting}={location}: the hub knows no commit of it")
    return found


def hub_rows(location: str, setting: str) -> Iterator[Row]:
    """Yield the rows of a data set, in order.

    Raises:
        UserError: the `datasets` package is missing, the hub cannot be reached, or it has no such
            data set, config or split.
    """
    source = parse_hub(location, setting)
    number = 0
    # As Arrow: images and sounds are not decoded.
    for table in _load(source, location, setting).with_format("arrow").iter(_ROWS_AT_A_TIME):
        for values in cast(pa.Table, table).to_pylist():
            number += 1
            yield Row(source.name, number, values)


def _load(source: HubSource, location: str, setting: str) -> "Dataset":
    try:
        from datasets import disable_progress_bars, load_dataset
    except ImportError as error:
        raise UserError(
            f"{setting}={location} needs the package datasets: pip install 'cgd_ray[hub]'"
        ) from error
    disable_progress_bars()
    commit = hub_version(location, setting)
    try:
        return load_dataset(source.name, source.config, split=source.split, revision=commit)
    except (OSError, ValueError, httpx2.HTTPError) as error:
        raise UserError(f"{setting}={location} cannot be loaded: {_in_one_line(error)}") from error


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST_REASON else text[:_LONGEST_REASON] + " .."
