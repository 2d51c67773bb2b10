"""Every text that the platform asks a model with or trains one on, as one list.

`python -m cgd_ray.templates` prints docs/templates.md. A test holds each version to the hash of its
text: a changed text needs a new version, and then other artefacts.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cgd_ray.audit import alone, judge
from cgd_ray.evaluation import methods, templates
from cgd_ray.examples import objectives
from cgd_ray.examples.objectives import Chain
from cgd_ray.prompts.messages import Message
from cgd_ray.records import Critique, Draft, Prompt, Refinement
from cgd_ray.sampling import draft
from cgd_ray.teacher import again, critique, refinement, single

_PROMPT = Prompt("p", "{prompt}", None, None, "", "train")
_DRAFT = Draft("p/0", "p", "{draft}", "stop", 0, 0)
_CRITIQUE = Critique("p/0", "{critique}", "", critique.TEMPLATE, 0, 0, 0)
_REFINEMENT = Refinement("p/0", "{refinement}", "", refinement.TEMPLATE, 0, 0, 0)
_ASKED = replace(_PROMPT, reference="{reference}")


@dataclass(frozen=True, slots=True)
class Template:
    """One chat with slots such as `{prompt}`, and what names it in the artefacts."""

    version: str
    role: str  # what it is in the paper, or what it is for
    named_in: str  # where artefacts carry the version
    chat: tuple[tuple[str, str], ...]  # (role, text)

    @property
    def digest(self) -> str:
        """Sixteen hex digits of the SHA-256 of the chat."""
        return hashlib.sha256(json.dumps(self.chat).encode()).hexdigest()[:16]


def all_templates() -> list[Template]:
    """Return the templates in the order of the flow."""
    asked = [
        Template(
            draft.TEMPLATE,
            "y' ~ S_init(. | x): the draft",
            "the name of the drafts' folder",
            _chat(draft.build_draft_messages(_PROMPT)),
        ),
        Template(
            critique.TEMPLATE,
            "c ~ T(. | x, y'): the critique",
            "`Critique.template`",
            _chat(critique.build_critique_messages(_PROMPT, _DRAFT)),
        ),
        Template(
            refinement.TEMPLATE,
            "y^ ~ T(. | x, y', c): the refinement, the second turn of the same chat",
            "`Refinement.template`",
            _chat(refinement.build_refinement_messages(_PROMPT, _DRAFT, _CRITIQUE)),
        ),
        Template(
            again.TEMPLATE,
            'a critique that leaks is asked for again (`curation.leakage = "regenerate"`)',
            "`Critique.template`, after that of the critique",
            _chat(again.build_again_messages(_PROMPT, _DRAFT, _CRITIQUE)),
        ),
        Template(
            single.TEMPLATE,
            "both in one call (`teacher.turns = 1`)",
            "`Critique.template` and `Refinement.template`",
            _chat(single.build_single_messages(_PROMPT, _DRAFT)),
        ),
    ]
    judged = judge.build_judge_messages(Chain(_ASKED, _DRAFT, _CRITIQUE, _REFINEMENT))
    asked.append(
        Template(
            judge.TEMPLATE, "the judge of leaks (`cgd audit --judge`)", "the journal", _chat(judged)
        )
    )
    told = Template(
        alone.TEMPLATE,
        "S(answer of y^ | c): what a critique alone tells (`cgd audit --information-gain`)",
        "the name of the readings' folder",
        (*_chat(alone.build_alone_messages("{critique}")), ("assistant", "{answer}")),
    )
    return [*asked, told, *_trained(), *_evaluated()]


def _trained() -> Iterable[Template]:
    for name, objective in objectives.OBJECTIVES.items():
        yield Template(
            f"{objectives.TEMPLATE} {name}",
            "what is trained on; the last turn alone has loss",
            "`Example.objective`, and the name of the examples' folder",
            (*objective.context, ("assistant", objective.target)),
        )


def _evaluated() -> Iterable[Template]:
    for version in templates.TEMPLATES:
        asked = templates.build_problem_messages(version, "{prompt}")
        yield Template(version, "a test problem is asked", "`Setup.template`", _chat(asked))
    first = templates.build_problem_messages("plain/v1", "{prompt}")
    yield Template(
        methods.SELF_REFINE,
        "a model criticises and rewrites its own answer, a baseline (after any template above)",
        "`Setup.template`",
        _chat(methods.rewrite_messages(first, "{draft}", "{critique}")),
    )


def _chat(messages: Sequence[Message]) -> tuple[tuple[str, str], ...]:
    return tuple((message["role"], message["content"]) for message in messages)


def page(found: Sequence[Template]) -> str:
    """Return the list as Markdown."""
    lines = [
        "# Templates",
        "",
        "Every text that asks a model or is trained on, printed by `python -m cgd_ray.templates`.",
        "The roles are the paper's, the words are ours. A changed text is a new version: a test",
        "holds each to its hash. A new version makes new artefacts: folders are named by a hash in",
        "which it counts. The student's and the teacher's own chat templates go around these",
        "turns. Text from data and models stands between tags that it cannot close.",
        "",
        "| version | SHA-256 | what it is | where artefacts name it |",
        "|---|---|---|---|",
    ]
    for one in found:
        role = one.role.replace("|", "\\|")
        lines.append(f"| `{one.version}` | `{one.digest}` | {role} | {one.named_in} |")
    for one in found:
        lines += ["", f"## {one.version}", ""]
        for role, text in one.chat:
            lines += [f"{role}:", "", "```text", text.replace("```", "'''"), "```", ""]
        lines.pop()
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(all_templates()), end="")
