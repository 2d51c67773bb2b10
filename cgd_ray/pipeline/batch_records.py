"""What a run remembers of its batches, so that a killed one finds them again.

Three objects a batch below `<refinements folder>/batches/`: `<name>.plan.json` before it is handed
in, `<name>.ids.json` once the provider has it, `<name>.done.json` once its answers are in the
journal. A plan alone is a batch that may or may not exist: the provider's list tells.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cgd_ray.store import MissingKey, Store
from cgd_ray.teacher.journal import Question


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """A batch of questions, by their keys."""

    name: str  # the provider sees it as the batch's tag
    at_s: float  # Unix time, before it was handed in
    worst_usd: float  # what it can cost at most
    keys: tuple[str, ...]  # of the questions, in the order of their rows
    kinds: tuple[dict[str, Any], ...]  # the different parameters of its questions
    kind_of: tuple[int, ...] = field(repr=False)  # for each key, the place of its parameters

    def parameters(self) -> dict[str, dict[str, Any]]:
        """Return each question's parameters by its key, in order."""
        return {k: self.kinds[i] for k, i in zip(self.keys, self.kind_of, strict=True)}


def plan_batch(
    name: str, at_s: float, worst_usd: float, questions: Sequence[Question]
) -> BatchPlan:
    """Return the plan of a batch."""
    kinds: list[dict[str, Any]] = []
    kind_of: list[int] = []
    for question in questions:
        parameters = question.parameters
        if parameters not in kinds:
            kinds.append(parameters)
        kind_of.append(kinds.index(parameters))
    keys = tuple(question.key for question in questions)
    return BatchPlan(name, at_s, worst_usd, keys, tuple(kinds), tuple(kind_of))


class BatchRecords:
    """The batches of one run, in its store.

    Args:
        store: of the run.
        folder: of its refinements.
    """

    def __init__(self, store: Store, folder: str) -> None:
        self._store = store
        self._prefix = f"{folder}/batches/"

    def put_plan(self, plan: BatchPlan) -> None:
        """Remember a batch that is about to be handed in."""
        self._store.put(self._key(plan, "plan"), json.dumps(asdict(plan)).encode())

    def drop_plan(self, plan: BatchPlan) -> None:
        """Forget a batch that the provider does not have."""
        self._store.delete(self._key(plan, "plan"))

    def put_ids(self, plan: BatchPlan, ids: Sequence[str]) -> None:
        """Remember what the provider calls a batch."""
        self._store.put(self._key(plan, "ids"), json.dumps(list(ids)).encode())

    def put_done(self, plan: BatchPlan, summary: dict[str, Any]) -> None:
        """Remember that a batch is over and its answers are in the journal."""
        self._store.put(self._key(plan, "done"), json.dumps(summary).encode())

    def open_plans(self) -> dict[str, tuple[BatchPlan, list[str]]]:
        """Return the batches that are not done, with their ids (none: not known), by name."""
        names = [entry.key.removeprefix(self._prefix) for entry in self._store.list(self._prefix)]
        done = {n.removesuffix(".done.json") for n in names if n.endswith(".done.json")}
        plans = [n.removesuffix(".plan.json") for n in names if n.endswith(".plan.json")]
        return {name: self._read(name) for name in plans if name not in done}

    def known_ids(self) -> set[str]:
        """Return the provider's names of all batches of the run, over or not."""
        keys = [e.key for e in self._store.list(self._prefix) if e.key.endswith(".ids.json")]
        return {batch_id for key in keys for batch_id in json.loads(self._store.get(key))}

    def _read(self, name: str) -> tuple[BatchPlan, list[str]]:
        value = json.loads(self._store.get(f"{self._prefix}{name}.plan.json"))
        for part in ("keys", "kinds", "kind_of"):
            value[part] = tuple(value[part])
        try:
            ids = json.loads(self._store.get(f"{self._prefix}{name}.ids.json"))
        except MissingKey:
            ids = []
        return BatchPlan(**value), ids

    def _key(self, plan: BatchPlan, part: str) -> str:
        return f"{self._prefix}{plan.name}.{part}.json"
