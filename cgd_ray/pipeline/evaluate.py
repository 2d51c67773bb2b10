"""Stages 7 and 8: serve base and student, ask both over HTTP, grade, compare."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager

from cgd_ray.errors import UserError
from cgd_ray.evaluation.grader_pool import GraderPool
from cgd_ray.evaluation.loading import load_problems
from cgd_ray.evaluation.methods import TEACHER_CRITIQUE, Ask
from cgd_ray.evaluation.problems import ProblemSet, own_problems, sample_problems
from cgd_ray.evaluation.runner import Answer, Endpoint, answer_questions, score_answers
from cgd_ray.evaluation.scoring import Question, questions_of
from cgd_ray.evaluation.setup import Setup, make_setup
from cgd_ray.evaluation.summary import BASE, STUDENT, summarise
from cgd_ray.evaluation.tasks import OWN, TaskSpec, parse_task
from cgd_ray.pipeline.context import RunContext, Summary
from cgd_ray.pipeline.local_teacher import journaled_teacher
from cgd_ray.pipeline.models import add_scores
from cgd_ray.pipeline.prompts import read_prompts
from cgd_ray.pipeline.stages import finished
from cgd_ray.pipeline.teacher_address import teacher_address
from cgd_ray.progress import StageLine
from cgd_ray.prompts.messages import Message
from cgd_ray.records import Score
from cgd_ray.shards import commit_shard, read_failures, read_records
from cgd_ray.teacher.completion import Completion
from cgd_ray.teacher.credentials import read_api_key
from cgd_ray.teacher.critique import TEMPLATE

_SHARD_ROWS = 32


def make_scores(ctx: RunContext) -> Summary:
    """Ask both models what has no score yet, and compare them.

    Raises:
        UserError: the data of a task is missing or has no references; or questions stayed without
            an answer: the answers that came are kept, and the same command asks the rest.
    """
    evaluate = ctx.settings.evaluate
    questions: list[Question] = []
    setups: list[Setup] = []
    for spec in map(parse_task, evaluate.tasks):
        problems = task_problems(ctx, spec)
        for method in evaluate.methods:
            setup = make_setup(spec, method, problems, evaluate, ctx.settings.run.seed)
            setups.append(setup)
            questions += questions_of(setup, problems.problems, (BASE, STUDENT))
    folder = ctx.folders.scores
    commit_shard(ctx.store, folder, setups)
    _take_base_scores(ctx, setups)
    done = read_records(ctx.store, folder, Score)
    left = [question for question in questions if question.key not in done]
    with ctx.progress.stage("evaluation", len(questions), "answers") as line:
        line.update(0, 0, len(questions) - len(left), "starting the server")
        if left:
            with ExitStack() as stack:
                endpoint = stack.enter_context(_endpoint(ctx, sorted({q.model for q in left})))
                critic = _teacher_address(ctx, stack)
                asyncio.run(_ask(ctx, endpoint, critic, left, line, len(questions) - len(left)))
    scores = read_records(ctx.store, folder, Score)
    _check_complete(ctx, questions, scores)
    wanted = [scores[question.key] for question in questions]
    _share_base_scores(ctx, wanted)
    summary = summarise(setups, wanted, ctx.settings.run.seed, evaluate.num_resamples)
    if finished(ctx, "checkpoint"):  # not with an endpoint of the user's own models
        add_scores(ctx, summary)
    return summary


def task_problems(ctx: RunContext, spec: TaskSpec) -> ProblemSet:
    """Return the problems that a task asks.

    Raises:
        UserError: the data is missing or unusable, or its answers are code that may not be run.
    """
    evaluate, seed = ctx.settings.evaluate, ctx.settings.run.seed
    if spec.task.name == OWN:
        prompts = ctx.settings.prompts
        source = prompts.test or prompts.train
        problems = own_problems(read_prompts(ctx, "test").values(), source)
    else:
        problems = load_problems(spec, evaluate.data_dir, evaluate.num_problems, seed)
    runs_code = any(problem.kind == "code" for problem in problems.problems)
    if runs_code and not evaluate.allow_code_execution:
        raise UserError(
            f"task {spec.text} runs code that models write: set "
            "evaluate.allow_code_execution=true to let it, in a process without network or rights"
        )
    if problems.num_left_out:
        ctx.progress.say(f"{spec.text}: {problems.num_left_out} rows need a picture, left out")
    return sample_problems(problems, evaluate.num_problems)


def _take_base_scores(ctx: RunContext, setups: list[Setup]) -> None:
    """Copy the untrained model's scores that another student's evaluation has paid for."""
    if ctx.settings.evaluate.base_url is not None:
        return  # the endpoint is not ours: its base model may be another one each time
    wanted = {setup.id for setup in setups}
    found = read_records(ctx.store, ctx.folders.base_scores, Score).values()
    if known := [score for score in found if score.setup in wanted]:
        commit_shard(ctx.store, ctx.folders.scores, known)


def _share_base_scores(ctx: RunContext, scores: list[Score]) -> None:
    if ctx.settings.evaluate.base_url is None:
        untrained = [score for score in scores if score.model == BASE]
        setups = list(read_records(ctx.store, ctx.folders.scores, Setup).values())
        commit_shard(ctx.store, ctx.folders.base_scores, [*setups, *untrained])


@contextmanager
def _endpoint(ctx: RunContext, wanted: Sequence[str]) -> Iterator[Endpoint]:
    """Yield an endpoint that serves the models that are asked: the user's own, or ours."""
    evaluate = ctx.settings.evaluate
    if evaluate.base_url:
        names = {BASE: evaluate.base_model, STUDENT: evaluate.student_model}
        variable = evaluate.api_key_env
        yield Endpoint(evaluate.base_url, names, variable and read_api_key(variable, None))
        return
    # Loading an engine takes ten seconds, and an endpoint of the user's does without.
    from cgd_ray.pipeline.endpoint import own_endpoint

    with own_endpoint(ctx, wanted) as endpoint:
        yield endpoint


def _teacher_address(ctx: RunContext, stack: ExitStack) -> str | None:
    if TEACHER_CRITIQUE not in ctx.settings.evaluate.methods:
        return None
    return stack.enter_context(teacher_address(ctx))


@asynccontextmanager
async def _critic(ctx: RunContext, base_url: str | None) -> AsyncIterator[Ask | None]:
    """Hold the teacher, its answers through the run's journal; None if no method needs it."""
    if base_url is None:
        yield None
        return
    async with journaled_teacher(ctx, base_url) as teacher:

        async def ask(messages: list[Message]) -> Completion:
            max_tokens = ctx.settings.teacher.critique_max_tokens
            return await teacher.ask(messages, max_tokens, TEMPLATE)

        yield ask


async def _ask(
    ctx: RunContext,
    endpoint: Endpoint,
    teacher_url: str | None,
    questions: list[Question],
    line: StageLine,
    skipped: int,
) -> None:
    made = failed = 0
    waiting: list[Answer] = []
    with GraderPool(ctx.settings.curation.num_processes) as pool:
        async with _critic(ctx, teacher_url) as critic:
            answers = answer_questions(endpoint, questions, ctx.settings.evaluate, critic)
            async for answer in answers:
                waiting.append(answer)
                if len(waiting) < _SHARD_ROWS and made + failed + len(waiting) < len(questions):
                    continue
                graded, waiting = waiting, []
                # Beside the loop: answers go on arriving while these are graded and stored.
                num_made, num_failed = await asyncio.to_thread(_store, ctx, graded, pool)
                made, failed = made + num_made, failed + num_failed
                line.update(made, failed, skipped)


def _store(ctx: RunContext, answers: list[Answer], pool: GraderPool) -> tuple[int, int]:
    outcomes = score_answers(answers, pool)
    commit_shard(ctx.store, ctx.folders.scores, [*outcomes.records, *outcomes.failures])
    return len(outcomes.records), len(outcomes.failures)


def _check_complete(ctx: RunContext, questions: list[Question], scores: dict[str, Score]) -> None:
    missing = [question.key for question in questions if question.key not in scores]
    if not missing:
        return
    failures = read_failures(ctx.store, ctx.folders.scores, scores)
    first = next(failures[key] for key in missing if key in failures)
    raise UserError(
        f"{len(missing)} questions have no answer (first: {first.row_id}: {first.reason}: "
        f"{first.detail}); the same command asks them again"
    )
