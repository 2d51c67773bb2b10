"""What many prompts need: the arithmetic by hand, the sources of its figures, and the page."""

import json
import re
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cgd_ray.capacity.figures import (
    CPU_SAMPLER,
    CPU_TRAINER,
    Figure,
    given_figures,
    standard_figures,
    with_figures,
)
from cgd_ray.capacity.needs import (
    Engine,
    Pool,
    Pools,
    Rates,
    Work,
    answers_per_s,
    generated_per_s,
    needs,
    trained_per_s,
)
from cgd_ray.capacity.nodes import PRICES, gpu_of
from cgd_ray.cluster.ec2 import INSTANCES
from cgd_ray.errors import UserError
from cgd_ray.pipeline.capacity import capacity_page_of
from cgd_ray.pipeline.context import open_context
from cgd_ray.settings import Settings, load
from cgd_ray.shards import mark_complete

REPO = Path(__file__).resolve().parents[2]
RESULTS = REPO / "benchmarks" / "results"
POOLS = Pools(
    head=Pool("head", "m7i.xlarge", 1, 1.0),
    drafts=Pool("drafts", "g6e.2xlarge", 4, 2.0, 0.5),
    teacher=Pool("teacher's calls", "c7i.xlarge", 1, 0.5),
    training=Pool("training", "p5.48xlarge", 2, 50.0),
)
WORK = Work(drafts=2, taught=1.5, teacher_usd=0.01, trained_tokens=3600, platform_core_s=0.0018)
RATES = Rates(drafts=20.0, taught=10.0, taught_a_server=None, trained_tokens=10_000)


def result(name: str) -> dict:
    (path,) = RESULTS.glob(f"{name}-2cpu-*.json")
    return json.loads(path.read_text())


def shipped(name: str, *overrides: str) -> Settings:
    return load(REPO / "jobs" / "runs" / f"{name}.toml", overrides)


def test_hours_and_dollars_by_hand() -> None:
    n = needs(36_000, WORK, RATES, POOLS)
    assert (n.num_drafts, n.num_taught, n.trained_tokens) == (72_000, 54_000, 129_600_000)
    assert (n.drafting_h, n.teaching_h, n.generation_h) == (1.0, 1.5, 1.5), "they stream"
    assert n.training_h == 3.6
    assert n.hours == pytest.approx(5.1)
    head, drafts, teacher, training = n.pools
    assert head.usd == pytest.approx(5.1)
    assert (drafts.node_hours, drafts.usd, drafts.usd_as_set) == (6.0, 12.0, 3.0)
    assert (teacher.usd, teacher.usd_as_set) == (0.75, 0.75)
    assert training.usd == pytest.approx(360)
    assert n.nodes_usd - n.nodes_usd_as_set == pytest.approx(9.0)
    assert n.teacher_usd == 360.0
    assert n.platform_core_h == pytest.approx(0.036)


def test_a_hundred_times_the_prompts_need_a_hundred_times_as_much() -> None:
    one, hundred = needs(100_000, WORK, RATES, POOLS), needs(10_000_000, WORK, RATES, POOLS)
    assert hundred.nodes_usd == pytest.approx(100 * one.nodes_usd)
    assert hundred.hours == pytest.approx(100 * one.hours)
    # 10^7 x 3,600 tokens at 10,000 a second by two nodes: 2,000 node-hours, 84 nodes for a day.
    assert hundred.pools[-1].nodes_for_a_day == 84


def test_batches_wait_for_all_drafts_and_take_a_day() -> None:
    n = needs(36_000, WORK, replace(RATES, taught=None), POOLS)
    assert (n.drafting_h, n.teaching_h, n.generation_h) == (1.0, 24.0, 25.0)
    assert n.pools[1].hours == 1.0, "nodes that draft are given back"


def test_servers_of_the_teachers_own_keep_up_with_the_drafts() -> None:
    pools = replace(POOLS, server=Pool("teacher's model", "p5.48xlarge", 1, 50.0))
    n = needs(36_000, WORK, replace(RATES, taught_a_server=4.0), pools)  # 3.75 h on one
    server = n.pools[3]
    assert (server.num_nodes, server.hours) == (3, 1.5)
    assert server.num_nodes * 4.0 * n.generation_h * 3600 >= n.num_taught


def test_an_engine_is_bound_by_what_is_slower() -> None:
    # 1 GB of weights and 1 MB of cache a sequence, 1 TB/s: 2 ms a step for 1,000 sequences.
    engine = Engine(0.5e9, 1000.0, 1e12, 1e15, 80e9, 1000, 1.0)
    assert generated_per_s(engine, 1000) == pytest.approx(500_000)
    assert generated_per_s(replace(engine, share=0.5), 1000) == pytest.approx(250_000)
    # 2 x 0.5e9 FLOPs each: 10 ms at 10^14 a second.
    assert generated_per_s(replace(engine, gpu_flops=1e14), 1000) == pytest.approx(100_000)
    # Room for 100 sequences: 0.9 x 1.2222 GB - 1 GB.
    small = replace(engine, gpu_num_bytes=1.1e9 / 0.9)
    assert generated_per_s(small, 1000) == pytest.approx(100 / 0.0011)
    # 1,000 tokens are read in 1 ms, 100 are written at 500,000/s in 0.2 ms.
    assert answers_per_s(engine, 950, 100) == pytest.approx(1 / (0.00095 + 0.0002))
    assert answers_per_s(engine, 950, 100, 950) == pytest.approx(1 / 0.0002)


def test_training_takes_six_flops_a_weight_and_four_where_it_is_frozen() -> None:
    assert trained_per_s(8e9, 16 * 1e15, 0.3) == pytest.approx(100_000)
    assert trained_per_s(8e9, 16 * 1e15, 0.3, 0.0) == pytest.approx(150_000)


def test_measured_figures_are_those_of_the_result_files(demo: Callable[..., Settings]) -> None:
    figures = standard_figures(demo())
    sampling = result("sampling")
    ours = statistics.median(run["tokens_per_s"] for run in sampling["ours"]["runs"])
    assert CPU_SAMPLER.value == pytest.approx(ours, rel=0.005)
    assert figures["ray_share"].value == sampling["ratio"]
    training = [run["tokens_per_s"] for run in result("train-speed")["ours"]["runs"]]
    assert CPU_TRAINER.value == pytest.approx(statistics.median(training), rel=0.005)
    rows = re.findall(r"^\| 10\^6 \| (\d+) \|", (REPO / "docs/scale.md").read_text(), re.MULTILINE)
    assert figures["platform_core_ms_a_draft"].value == pytest.approx(2 * int(rows[0]) / 1000)
    for figure in (CPU_SAMPLER, CPU_TRAINER, *figures.values()):
        for name in re.findall(r"benchmarks/results/[\w.-]+\.json", figure.source):
            assert (REPO / name).is_file(), name


def test_every_node_type_has_a_price_and_every_gpu_a_data_sheet() -> None:
    assert set(PRICES) == set(INSTANCES)
    for name, instance in INSTANCES.items():
        assert PRICES[name].spot < PRICES[name].on_demand
        gpu = gpu_of(name)
        assert (gpu is not None) == bool(instance.gpus), name
        if gpu is not None:
            assert gpu.num_bytes == instance.gpu_gib * 2**30, name


def test_what_is_given_wins_and_is_checked() -> None:
    known = {"mfu": Figure("mfu", 0.35, "of it", "assumed", "")}
    given = with_figures(known, given_figures(["mfu=0.5"], known))
    assert (given["mfu"].value, given["mfu"].kind) == (0.5, "given")
    again = with_figures(given, [Figure("mfu", 0.1, "of it", "measured", "")])
    assert again["mfu"].value == 0.5
    for wrong, says in (
        ("mfv=1", "one of mfu, as name=value"),
        ("mfu", "'' is not a number above 0"),
        ("mfu=fast", "'fast' is not a number"),
        ("mfu=0", "'0' is not a number above 0"),
        ("mfu=inf", "'inf' is not a number"),
    ):
        with pytest.raises(UserError, match=f"--assume {wrong}: .*{says}"):
            given_figures([wrong], known)


def table(page: str, row: str) -> list[str]:
    """Return the cells of a row of the first table."""
    line = next(line for line in page.splitlines() if line.startswith(f"  {row}  "))
    return re.split(r"\s{2,}", line.strip())[1:]


@pytest.mark.parametrize("path", sorted((REPO / "jobs/runs").glob("*.toml")), ids=lambda p: p.stem)
def test_every_shipped_run_has_a_page_that_fits_a_terminal(path: Path) -> None:
    page = capacity_page_of(load(path), None, unread="it is away")
    assert max(map(len, page.splitlines())) <= 100
    assert "10,000,000 prompts" in page
    assert "The run's artefacts cannot be read: it is away" in page
    assert "Nothing here has run on a GPU" in page


def test_the_papers_recipe_has_the_nodes_of_its_cluster_file() -> None:
    page = capacity_page_of(shipped("llama31_8b_webinstruct_2n8g"), None)
    assert table(page, "drafts")[0] == "16 x g6e.2xlarge"
    assert table(page, "training")[0] == "2 x p5.48xlarge"
    assert "its model is taken to be served on nodes of your own" in page
    slower = capacity_page_of(
        shipped("llama31_8b_webinstruct_2n8g"), None, ["trainer_tokens_per_s=1000"]
    )
    hours = float(table(slower, "training")[1])
    assert hours == pytest.approx(100_000 * 1480 / 1000 / 3600, rel=0.01)


def test_the_page_in_the_docs_is_the_one_that_is_printed() -> None:
    page = capacity_page_of(shipped("llama31_8b_webinstruct_2n8g"), None, unread="...")
    told = page.partition("\nThe run's artefacts")[0]
    assert f"```\n{told}\n```" in (REPO / "docs" / "scale.md").read_text(encoding="utf-8")


def test_a_provider_is_paid_by_the_token() -> None:
    page = capacity_page_of(
        shipped("llama31_8b_8g", "teacher.model=gpt-4o", "teacher.base_url=none"),
        None,
        ["teacher_input_tokens=1000", "critique_tokens=50", "refinement_tokens=50"],
    )
    assert "teacher's model" not in page
    assert "the teacher's tokens cost $350 on top" in page  # 10^5 x (1000 x 2.5 + 100 x 10) / 10^6
    assert "given     teacher_input_tokens" in page


def test_an_unknown_speed_says_what_to_give() -> None:
    settings = shipped("llama31_8b_8g", "sampling.accelerator=cpu")
    with pytest.raises(UserError, match=r"--assume sampler_tokens_per_s=.*accelerator=gpu"):
        capacity_page_of(settings, None)
    page = capacity_page_of(settings, None, ["sampler_tokens_per_s=12"])
    assert "given     sampler_tokens_per_s" in page
    assert "ray_share" not in page, "nothing follows from it"
    assert "mfu" in page


def test_a_run_of_its_own_is_measured(tmp_path: Path) -> None:
    settings = shipped(
        "llama31_8b_8g", f"run.root={tmp_path}", "prompts.train=reasoning-gym:chain_sum"
    )
    settings = settings.model_copy(
        update={"prompts": settings.prompts.model_copy(update={"test": None, "num_test": 2})}
    )
    ctx = open_context(settings)
    counts = {"asked": 200, "failed": {}, "tokens": 40_000, "seconds": 100.0}
    mark_complete(ctx.store, ctx.folders.drafts, {**counts, "made": 160, "before": 80})
    mark_complete(ctx.store, ctx.folders.refinements, TEACHER)
    mark_complete(ctx.store, ctx.folders.curated, {"asked": 120, "kept": 60, "rejected": {}})
    mark_complete(ctx.store, ctx.folders.examples, {"made": 60, "tokens": 60_000})
    mark_complete(ctx.store, ctx.folders.checkpoint, {"steps": 9, "tokens_per_second": 5000.0})
    page = capacity_page_of(settings, ctx)
    figures = dict(re.findall(r"^  measured +(\w+) +([\d.,]+) ", page, re.MULTILINE))
    assert figures["draft_tokens"] == "250"
    assert figures["drafted_share"] == "0.8"
    assert figures["refined_share"] == "0.75"
    assert figures["teacher_input_tokens"] == "500"
    assert (figures["critique_tokens"], figures["refinement_tokens"]) == ("50", "50")
    assert figures["kept_share"] == "0.5"
    assert figures["example_tokens"] == "1,000"
    assert figures["trainer_tokens_per_s"] == "5,000"
    # Half of the drafts were there before: 20,000 tokens in 100 s by 8 engines.
    assert figures["sampler_tokens_per_s"] == "25"
    # 10^5 prompts x 0.8 x 0.75 x 0.5 x 1,000 tokens at 5,000 a second.
    assert float(table(page, "training")[1]) == pytest.approx(1.7, abs=0.05)
    assert "The run has made nothing yet" not in page


TEACHER = {
    "asked": 160,
    "refined": 120,
    "failed": {"refusal": 40},
    "input_tokens": 80_000,
    "cached_tokens": 0,
    "output_tokens": 16_000,
    "usd": None,
}
