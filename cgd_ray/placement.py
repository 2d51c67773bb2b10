"""Which work runs on which nodes: each role asks for nodes that carry its label. Pure.

A node carries one key a role, so it can have several: `ray start --labels cgd-teacher=true,...`,
the `labels` of a node type or of a KubeRay worker group. Where no node carries any such key (a
laptop) nothing is asked for, and Ray places by resources alone.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

Role = Literal["head", "rows", "teacher", "sampler", "trainer", "server"]
"""`head` marks the cluster as a labelled one, and no work asks for it; `rows` reads, tokenizes and
stores rows; `teacher` calls the teacher; `sampler` drafts; `trainer` trains; `server` answers."""

_PREFIX, _YES = "cgd-", "true"


def node_labels(*roles: Role) -> dict[str, str]:
    """Return the labels of a node that has these roles."""
    return {f"{_PREFIX}{role}": _YES for role in roles}


def roles_of(main: Role) -> tuple[Role, ...]:
    """Return all roles of a node that is there for one of them: rows go where no GPU waits."""
    return (main, "rows") if main in ("head", "teacher") else (main,)


def label_selector(role: Role, nodes: Iterable[Mapping[str, str]]) -> dict[str, str] | None:
    """Return what a role's actors and tasks ask of a node; None on a cluster without our labels.

    Args:
        role: of the work.
        nodes: labels of each node that is up. A cluster that grows has a head that is, with a label
            of ours: nodes of the role may be yet to come.
    """
    ours = any(key.startswith(_PREFIX) for labels in nodes for key in labels)
    return node_labels(role) if ours else None
