"""`cgd failures`: which rows failed, where and why."""

from collections import Counter
from collections.abc import Iterator

from cgd_ray.noise import say
from cgd_ray.pipeline.context import RunContext
from cgd_ray.pipeline.prompts import split_folder
from cgd_ray.pipeline.run import opened
from cgd_ray.records import Draft, Example, Failure, Record, Refinement, Score
from cgd_ray.settings import Settings
from cgd_ray.shards import committed_files, read_failures

_WIDEST = 100  # characters of a detail


def failures(settings: Settings, reason: str | None, limit: int) -> None:
    """Print the failed rows of every stage: counts by reason, then the rows."""
    with opened(settings) as ctx:
        found = list(all_failures(ctx))
    counts = Counter((f.stage, f.reason, f.permanent) for f in found)
    if not counts:
        say("no row has failed")
        return
    for (stage, why, permanent), count in counts.most_common():
        when = "for good" if permanent else "for now: the next run tries again"
        say(f"{count:>8}  {stage:<12} {why:<16} {when}")
    shown = [f for f in found if reason in (None, f.reason)]
    say("")
    for failure in shown[:limit]:
        say(f"{failure.row_id:<22} {failure.reason:<16} {failure.detail[:_WIDEST]}")
    if len(shown) > limit:
        say(f"... and {len(shown) - limit} more (--limit {len(shown)})")
    say("--retry-failed tries them again, those that failed for good too")


def all_failures(ctx: RunContext) -> Iterator[Failure]:
    """Yield the failures of every stage, in the order of the stages."""
    f = ctx.folders
    stages: list[tuple[str, type[Record] | None]] = [
        (split_folder(f.prompts, "train"), None),
        (split_folder(f.prompts, "test"), None),
        (f.drafts, Draft),
        (f.refinements, Refinement),
        (f.examples, Example),
        (f.scores, Score),
    ]
    for folder, kind in stages:
        files = committed_files(ctx.store, folder, kind) if kind else []
        made = {key for file in files for key in file.ids}
        yield from read_failures(ctx.store, folder, made).values()
