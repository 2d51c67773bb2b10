"""Whole chains as rows of a table: what was asked, drafted, criticised, refined and decided."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from cgd_ray.errors import UserError
from cgd_ray.export.lookup import Lookup
from cgd_ray.keys import KeyIndex
from cgd_ray.records import Critique, CuratedRow, Draft, Prompt, Refinement
from cgd_ray.store import Store

T = TypeVar("T")

SCHEMA = pa.schema(
    [
        pa.field("draft_id", pa.string(), nullable=False),
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("reference", pa.string()),
        pa.field("draft", pa.string(), nullable=False),
        pa.field("critique", pa.string(), nullable=False),
        pa.field("refinement", pa.string(), nullable=False),
        pa.field("draft_correct", pa.bool_()),
        pa.field("refinement_correct", pa.bool_()),
        pa.field("rejected", pa.string()),
        pa.field("teacher", pa.string(), nullable=False),
        pa.field("critique_template", pa.string(), nullable=False),
        pa.field("refinement_template", pa.string(), nullable=False),
        pa.field("draft_finish_reason", pa.string(), nullable=False),
        pa.field("draft_tokens", pa.int32(), nullable=False),
        pa.field("critique_input_tokens", pa.int32(), nullable=False),
        pa.field("critique_cached_tokens", pa.int32(), nullable=False),
        pa.field("critique_output_tokens", pa.int32(), nullable=False),
        pa.field("refinement_input_tokens", pa.int32(), nullable=False),
        pa.field("refinement_cached_tokens", pa.int32(), nullable=False),
        pa.field("refinement_output_tokens", pa.int32(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class ChainFolders:
    """Where the parts of the chains are."""

    prompts: str
    drafts: str
    refinements: str  # critiques too
    curated: str


class Chains:
    """The committed chains of a run that have a refinement, each once, in commit order."""

    def __init__(self, store: Store, folders: ChainFolders) -> None:
        self._folders = folders
        self._prompts = Lookup(store, folders.prompts, Prompt)
        self._drafts = Lookup(store, folders.drafts, Draft)
        self._critiques = Lookup(store, folders.refinements, Critique)
        self._refinements = Lookup(store, folders.refinements, Refinement)
        self._curated = Lookup(store, folders.curated, CuratedRow)

    def __len__(self) -> int:
        """Return the number of chains."""
        return len(self._refinements.index)

    @property
    def drafts(self) -> KeyIndex:
        """The ids of the drafts."""
        return self._drafts.index

    @property
    def refinements(self) -> KeyIndex:
        """The ids of the drafts that have a refinement."""
        return self._refinements.index

    def counts(self) -> dict[str, int]:
        """Return the number of records of each stage."""
        return {
            "training prompts": len(self._prompts.index),
            "drafts": len(self._drafts.index),
            "critiques": len(self._critiques.index),
            "refinements": len(self),
        }

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows of one shard after the other.

        Raises:
            UserError: a part of a chain is missing from the store.
        """
        for number in range(len(self._refinements.files)):
            refinements = self._refinements.first(number)
            if refinements:
                yield pa.Table.from_pylist(list(self._rows(refinements)), schema=SCHEMA)

    def _rows(self, refinements: Sequence[Refinement]) -> Iterator[dict[str, Any]]:
        keys = [refinement.draft_id for refinement in refinements]
        drafts = [
            self._present(d, "draft", k) for k, d in zip(keys, self._drafts.find(keys), strict=True)
        ]
        prompts = self._prompts.find([draft.prompt_id for draft in drafts])
        critiques, verdicts = self._critiques.find(keys), self._curated.find(keys)
        parts = zip(keys, prompts, drafts, critiques, refinements, verdicts, strict=True)
        for key, prompt, draft, critique, refinement, verdict in parts:
            yield _row(
                self._present(prompt, "prompt", key),
                draft,
                self._present(critique, "critique", key),
                refinement,
                verdict,
            )

    def _present(self, part: T | None, kind: str, key: str) -> T:
        if part is None:
            raise UserError(
                f"the {kind} of the chain {key} is missing from the store: {self._folders}"
            )
        return part


def _row(
    prompt: Prompt,
    draft: Draft,
    critique: Critique,
    refinement: Refinement,
    verdict: CuratedRow | None,
) -> dict[str, Any]:
    return {
        "draft_id": draft.id,
        "prompt_id": prompt.id,
        "source": prompt.source,
        "prompt": prompt.text,
        "reference": prompt.reference,
        "draft": draft.text,
        "critique": critique.text,
        "refinement": refinement.text,
        "draft_correct": verdict and verdict.draft_correct,
        "refinement_correct": verdict and verdict.refinement_correct,
        "rejected": verdict and verdict.rejected,
        "teacher": refinement.model,
        "critique_template": critique.template,
        "refinement_template": refinement.template,
        "draft_finish_reason": draft.finish_reason,
        "draft_tokens": draft.num_tokens,
        **_tokens("critique", critique),
        **_tokens("refinement", refinement),
    }


def _tokens(name: str, answer: Critique | Refinement) -> dict[str, int]:
    return {
        f"{name}_input_tokens": answer.num_input_tokens,
        f"{name}_cached_tokens": answer.num_cached_tokens,
        f"{name}_output_tokens": answer.num_output_tokens,
    }
