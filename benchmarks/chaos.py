"""`make chaos`: the reliability checks with many seeds, on a real S3 server behind a fault proxy.

`python -m benchmarks.chaos [LANE ...] [--seeds 1 2 3]` runs the lanes named, or all, and prints a
line for each seed. The status is 1 if any promise was broken. The same lanes with small numbers are
tests.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ray.cluster_utils import Cluster

from tests.support import commit_fire, driver_fire, lease_fire, node_fire, train_fire
from tests.support.row_checker import Violations
from tests.support.s3 import BUCKET, S3UnderFire, s3_under_fire

_EXTRA_CALLS_SHARE = 0.02  # of the teacher calls that a run needs
_ROWS, _LATENCY_MS = 300, 200
# A kill costs at most the calls in flight, 8 an actor: six of them pass for 2 % of 3,000 calls.
_DRIVER_ROWS = 1500


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one lane did with one seed."""

    report: object
    kept: bool  # the promise


Lane = Callable[[S3UnderFire, Path, int], Outcome]


def commits(fire: S3UnderFire, folder: Path, seed: int) -> Outcome:
    """Kill a writer at every request of its commits (check 2)."""
    report = commit_fire.kill_everywhere(fire, num_shards=2 + seed % 3)
    return Outcome(report, report.violations == Violations())


def races(fire: S3UnderFire, folder: Path, seed: int) -> Outcome:
    """Let eight processes commit the same rows at the same moment (check 3)."""
    report = commit_fire.race_commits(fire, seed, num_races=50)
    return Outcome(
        report, report.num_one_winner == report.num_races and report.violations == Violations()
    )


def brown_out(fire: S3UnderFire, folder: Path, seed: int) -> Outcome:
    """Break requests for 30 s: 503, resets, stalls, cut answers (check 14)."""
    report = commit_fire.brown_out(fire, seed, outage_s=30)
    return Outcome(report, report.violations == Violations())


def server(fire: S3UnderFire, folder: Path, seed: int) -> Outcome:
    """`kill -9` the S3 server in mid-stream; it is back after some seconds (check 14)."""
    report = commit_fire.server_killed(fire, f"server-{seed}", away_s=5.0 * seed)
    return Outcome(report, report.violations == Violations())


def lease(fire: S3UnderFire, folder: Path, seed: int) -> Outcome:
    """Let drivers contend for a run while its owners die, pause and end (check 22)."""
    report = lease_fire.contend(fire, seed, num_rounds=6)
    return Outcome(
        report,
        report.num_one_winner == report.num_rounds and report.num_fenced == report.num_paused,
    )


def drivers(fire: S3UnderFire, folder: Path, seed: int) -> Outcome:
    """`kill -9` the driver of `cgd generate` at random times until it is done (check 1)."""
    with driver_fire.job(fire, folder, f"drivers-{seed}", _DRIVER_ROWS, _LATENCY_MS) as job:
        report = driver_fire.kill_drivers(job, seed, num_kills=6)
    kept = report.violations == Violations() and report.extra_share <= _EXTRA_CALLS_SHARE
    return Outcome(report, kept)


def workers(fire: S3UnderFire, folder: Path, seed: int) -> Outcome:
    """`kill -9` workers of `cgd generate` every few seconds, beside a calm run (check 4)."""
    with driver_fire.job(fire, folder / "calm", f"calm-{seed}", _ROWS, _LATENCY_MS) as job:
        calm = driver_fire.undisturbed(job)
    with driver_fire.job(fire, folder / "killed", f"workers-{seed}", _ROWS, _LATENCY_MS) as job:
        report = driver_fire.kill_workers(job, seed, every_s=4)
    slowdown = f"{report.seconds / calm.seconds:.2f} times the calm run's {calm.seconds} s"
    return Outcome((slowdown, report), report.violations == Violations())


def nodes(fire: S3UnderFire, folder: Path, seed: int) -> Outcome:
    """Lose one of three nodes of a run's cluster, twice (check 5)."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        members = [cluster.add_node(num_cpus=2) for _ in range(2)]
        with driver_fire.job(fire, folder, f"nodes-{seed}", _ROWS, _LATENCY_MS) as job:
            began, losses = time.monotonic(), 0
            process = job.start(RAY_ADDRESS=str(cluster.address))
            driver_fire.wait_or_end(process, lambda: job.num_calls() > 0)
            while losses < 2 and not driver_fire.ended_within(process, 2):
                cluster.remove_node(members.pop(0), allow_graceful=False)
                losses += 1
                members.append(cluster.add_node(num_cpus=2))
            job.finish(process)
            report = driver_fire.check(job, losses, began)
    finally:
        cluster.shutdown()
    return Outcome(report, report.violations == Violations())


def training(fire: S3UnderFire, folder: Path, seed: int) -> Outcome:
    """Kill training's workers, damage its states, change its workers (checks 11, 12, 13)."""
    name = f"training-{seed}"
    folder.mkdir(parents=True)
    world = train_fire.make_world(fire.direct(name), f"{BUCKET}/{name}", folder)
    report = train_fire.everything(world, seed, folder)
    return Outcome(report, report.kept)


def elastic(fire: S3UnderFire, folder: Path, seed: int) -> Outcome:
    """Lose, add and lose a node of a training with one or two workers."""
    name = f"elastic-{seed}"
    folder.mkdir(parents=True)
    world = train_fire.make_world(fire.direct(name), f"{BUCKET}/{name}", folder)
    report = node_fire.lose_and_add_nodes(world, "elastic", folder, ("lose", "add", "lose"))
    kept = report.num_workers == (2, 1, 2, 1) and report.loss_difference <= train_fire.LOSS_ROUNDING
    return Outcome(report, kept)


def churn(fire: S3UnderFire, folder: Path, seed: int) -> Outcome:
    """Lose and add nodes of such a training at random moments, in mid-start too."""
    name = f"churn-{seed}"
    folder.mkdir(parents=True)
    world = train_fire.make_world(fire.direct(name), f"{BUCKET}/{name}", folder)
    report = node_fire.lose_nodes_at_any_moment(world, "churn", folder, seed, num_losses=8)
    return Outcome(report, report.loss_difference <= train_fire.LOSS_ROUNDING)


LANES: dict[str, Lane] = {
    "commits": commits,
    "races": races,
    "brown-out": brown_out,
    "server": server,
    "lease": lease,
    "drivers": drivers,
    "workers": workers,
    "nodes": nodes,
    "training": training,
    "elastic": elastic,
    "churn": churn,
}


def main() -> int:
    """Run the lanes; return the exit status."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("lanes", nargs="*", metavar="LANE", help=f"of {', '.join(LANES)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], metavar="SEED")
    args = parser.parse_args()
    unknown = set(args.lanes) - LANES.keys()
    if unknown:
        parser.error(f"no lane {', '.join(sorted(unknown))}: choose of {', '.join(LANES)}")
    broken = 0
    with tempfile.TemporaryDirectory(prefix="chaos-") as name, s3_under_fire(Path(name)) as fire:
        for lane in args.lanes or LANES:
            for seed in args.seeds:
                outcome = LANES[lane](fire, Path(name) / f"{lane}-{seed}", seed)
                broken += not outcome.kept
                verdict = "kept" if outcome.kept else "BROKEN"
                print(f"{lane:<10} seed {seed}  {verdict:<6}  {outcome.report}", flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
