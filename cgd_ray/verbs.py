"""What `cgd` can do: each verb's function, its line of help and its own options."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Option:
    """An argument of one verb, as argparse takes it."""

    flag: str
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verb:
    """Something to do with a run."""

    function: str  # "module:function", called with the settings and the options
    help: str
    options: tuple[Option, ...] = ()
    announces: bool = True  # says first what it will do; else its output is what was asked for
    job: bool = True  # has a script in jobs/, and can be submitted to a cluster
    not_submitted: str = ""  # why it cannot, and what to do instead
    compares: bool = False  # takes two sides, each a run file or a folder, instead of a run
    names_commands: bool = False  # is told the run file and overrides, to name what comes next


_RETRY = Option(
    "--retry-failed",
    {"action": "store_true", "help": "try the rows again that failed, for good or not"},
)
_SAMPLE = Option(
    "--rows", {"type": int, "default": 8, "help": "drafts to ask the teacher about (default 8)"}
)
_RUN = "cgd_ray.pipeline.run"

VERBS = {
    "run": Verb(f"{_RUN}:run", "everything, from prompts to report", (_RETRY,)),
    "prompts": Verb(f"{_RUN}:prompts", "load the problems"),
    "generate": Verb(f"{_RUN}:generate", "drafts, critiques and refinements", (_RETRY,)),
    "drafts": Verb(f"{_RUN}:drafts", "drafts alone", (_RETRY,)),
    "teach": Verb(f"{_RUN}:teach", "critiques and refinements of the stored drafts", (_RETRY,)),
    "examples": Verb(f"{_RUN}:examples", "verify, tokenize and pack"),
    "train": Verb(f"{_RUN}:train", "fine-tune the student"),
    "serve": Verb(
        "cgd_ray.pipeline.serve:serve",
        "serve base and student over the OpenAI API",
        announces=False,
        not_submitted="a cluster serves by `serve deploy serve/guarded.yaml`, which outlives a job "
        "(docs/serving.md)",
    ),
    "evaluate": Verb(f"{_RUN}:evaluate", "ask both models, grade, compare"),
    "compare": Verb(
        "cgd_ray.pipeline.compare:compare",
        "compare two students task by task: run files or folders of scores; a side that lists "
        "several, joined by commas, is one recipe trained with several seeds",
        announces=False,
        job=False,
        compares=True,
    ),
    "status": Verb(
        "cgd_ray.pipeline.status:status",
        "say what the run has come to, whoever is at work on it, and what comes next",
        (Option("--json", {"action": "store_true", "help": "as one JSON object"}),),
        announces=False,
        job=False,
        names_commands=True,
    ),
    "report": Verb(f"{_RUN}:report", "write the page and summary.json", announces=False),
    "doctor": Verb(
        "cgd_ray.doctor:doctor", "say what is installed, reachable and missing", announces=False
    ),
    "estimate": Verb(
        "cgd_ray.pipeline.sample:estimate",
        "say what the teacher will cost, from a few real rows; or what many prompts need",
        (
            _SAMPLE,
            Option(
                "--cluster",
                {
                    "action": "store_true",
                    "help": "nodes, hours and dollars for 100,000 and 10,000,000 prompts, from "
                    "what the run has measured and from assumptions; asks nobody",
                },
            ),
            Option(
                "--assume",
                {
                    "action": "append",
                    "metavar": "NAME=VALUE",
                    "help": "with --cluster: replace a figure that the page shows, such as "
                    "sampler_tokens_per_s=4000 or usd.p5.48xlarge=31",
                },
            ),
        ),
        announces=False,
        job=False,
    ),
    "preview": Verb(
        "cgd_ray.pipeline.sample:preview",
        "show the rendered chats, and a few rows made for real",
        (_SAMPLE,),
        announces=False,
        job=False,
    ),
    "failures": Verb(
        "cgd_ray.pipeline.failures:failures",
        "list the rows that failed, with reasons",
        (
            Option("--reason", {"help": "only these, such as refusal"}),
            Option("--limit", {"type": int, "default": 20, "help": "most rows (default 20)"}),
        ),
        announces=False,
        job=False,
    ),
    "audit": Verb(
        "cgd_ray.pipeline.audit:audit",
        "say what the critiques are worth: leaks, verdicts, fixes, harms, information",
        (
            Option(
                "--information-gain",
                {
                    "type": int,
                    "default": 0,
                    "metavar": "N",
                    "help": "also let the student read N refinements with and without their "
                    "critiques, and their answers behind the critique alone: nats a token, entropy "
                    "and a plot (default 0: not)",
                },
            ),
            Option(
                "--judge",
                {
                    "type": int,
                    "default": 0,
                    "metavar": "N",
                    "help": "also ask the teacher whether N critiques give the answer away "
                    "(default 0: not); paid for once, through the journal",
                },
            ),
            Option(
                "--model",
                {
                    "choices": ("base", "student"),
                    "default": "base",
                    "help": "who reads them: the model that drafted, or the trained one",
                },
            ),
            Option("--json", {"action": "store_true", "help": "as one JSON object"}),
        ),
        announces=False,
        job=False,
    ),
    "export": Verb(
        "cgd_ray.pipeline.export:export",
        "write the chains as a data set folder with a card",
        (Option("--out", {"type": Path, "required": True, "help": "folder to create"}),),
        announces=False,
        job=False,
    ),
}
