"""YAML that people read: plain block style, with comments where a value has one. Pure."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import yaml


@dataclass(frozen=True, slots=True)
class Noted:
    """A value and the comment beside it."""

    value: Any  # a scalar, list or mapping of YAML
    note: str


def document(value: Mapping[str, Any], header: Sequence[str]) -> str:
    """Return one YAML document under comment lines.

    Args:
        value: a tree of mappings, lists, scalars and `Noted` ones.
        header: lines of the comment, without `#`.
    """
    lines = [f"# {line}".rstrip() for line in header]
    return "\n".join([*lines, *_block(value, "")]) + "\n"


def documents(values: Sequence[Mapping[str, Any]], header: Sequence[str]) -> str:
    """Return a stream of YAML documents under one comment."""
    first, *rest = values
    return "---\n".join([document(first, header), *(document(value, ()) for value in rest)])


def _block(value: object, indent: str) -> Iterator[str]:
    """Yield the lines of a mapping or list that has entries."""
    inner = f"{indent}  "
    if isinstance(value, Mapping):
        for key, held in cast("Mapping[str, Any]", value).items():
            yield from _entry(f"{indent}{_scalar(key)}:", held, inner)
        return
    for held in cast("Sequence[Any]", value):
        held_value = held.value if isinstance(held, Noted) else held
        if isinstance(held_value, Mapping | list | tuple) and held_value:
            first, *rest = _block(cast("object", held_value), inner)
            note = f"  # {held.note}" if isinstance(held, Noted) else ""
            yield f"{indent}- {first.lstrip()}{note}"
            yield from rest
        else:
            yield from _entry(f"{indent}-", held, inner)


def _entry(start: str, held: Any, inner: str) -> Iterator[str]:  # noqa: ANN401 - YAML
    """Yield what stands after a key or a dash."""
    value, note = (held.value, f" # {held.note}") if isinstance(held, Noted) else (held, "")
    if isinstance(value, Mapping | list | tuple):
        if not value:
            yield f"{start} {'{}' if isinstance(value, Mapping) else '[]'}{note}"
        else:
            yield f"{start}{note}"
            yield from _block(cast("object", value), inner)
    elif isinstance(value, str) and "\n" in value and not value[0].isspace():
        yield f"{start} |{'' if value.endswith(chr(10)) else '-'}{note}"
        yield from (
            f"{inner}{line}" if line else "" for line in value.removesuffix("\n").split("\n")
        )
    else:
        yield f"{start} {_scalar(value)}{note}"


@lru_cache(4096, typed=True)  # the same keys again and again, and PyYAML is slow
def _scalar(value: Hashable) -> str:
    """Return a scalar as YAML writes it, quoted where it must be."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def plain(value: Any) -> Any:  # noqa: ANN401 - YAML
    """Return a tree without its comments."""
    if isinstance(value, Noted):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {key: plain(held) for key, held in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [plain(held) for held in cast("Sequence[Any]", value)]
    return value
