"""The shipped Grafana dashboard: what Grafana takes, and the catalogue's metrics, all of them."""

import json
import re
from pathlib import Path

from cgd_ray.watching.catalogue import METRICS
from cgd_ray.watching.dashboard import dashboard

SHIPPED = Path(__file__).resolve().parents[2] / "cluster" / "grafana" / "cgd.json"
OF_HISTOGRAMS = ("_bucket", "_sum", "_count")


def shipped() -> dict:
    return json.loads(SHIPPED.read_text(encoding="utf-8"))


def expressions() -> list[str]:
    return [target["expr"] for panel in shipped()["panels"] for target in panel.get("targets", ())]


def test_the_shipped_file_is_what_the_code_makes() -> None:
    command = "`python -m cgd_ray.watching.dashboard > cluster/grafana/cgd.json`"
    assert shipped() == dashboard(), command


def test_every_query_is_of_our_metrics_and_every_metric_is_shown() -> None:
    runs = shipped()["templating"]["list"][1]["query"]["query"]
    asked = set(re.findall(r"\bray_cgd_\w+", " ".join([*expressions(), runs])))
    histograms = {
        m.exported + end for m in METRICS if m.kind == "histogram" for end in OF_HISTOGRAMS
    }
    plain = {m.exported for m in METRICS if m.kind != "histogram"}
    assert asked <= plain | histograms
    assert plain <= asked
    for m in METRICS:
        if m.kind == "histogram":
            assert f"{m.exported}_bucket" in asked


def test_labels_are_those_of_the_metric() -> None:
    labels = {m.exported: {*m.labels, "le"} for m in METRICS}
    for expression in expressions():
        for name, inside in re.findall(r"(ray_cgd_\w+?)(?:_bucket)?\{(.*?)\}", expression):
            assert set(re.findall(r"(\w+)[=!]", inside)) <= labels[name], expression
        (first, *_) = re.findall(r"ray_cgd_\w+", expression)
        for by in re.findall(r"by \((.*?)\)", expression):
            assert set(by.split(", ")) <= labels[first.removesuffix("_bucket")], expression


def test_counters_are_shown_as_rates_and_gauges_are_not() -> None:
    kinds = {m.exported: m.kind for m in METRICS}
    for expression in expressions():
        for name in re.findall(r"ray_cgd_\w+", expression):
            inside_a_rate = bool(re.search(rf"rate\({name}[{{\[]", expression))
            assert inside_a_rate == (kinds.get(name) != "gauge"), expression


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = shipped()["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}"


def test_source_and_run_can_be_chosen() -> None:
    source, run = shipped()["templating"]["list"]
    assert (source["name"], source["type"]) == ("datasource", "datasource")
    assert (run["name"], run["datasource"]["uid"]) == ("run", "${datasource}")
    with_a_run = {m.exported for m in METRICS if "run" in m.labels}
    for expression in expressions():
        for name in re.findall(r"ray_cgd_\w+", expression):
            if name in with_a_run:
                assert re.search(rf'{name}\{{run=~"\$run"', expression), expression


def test_the_docs_list_every_metric() -> None:
    text = (SHIPPED.parents[2] / "docs" / "clusters.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(ray_cgd_\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    told = [
        (name, kind, tuple(re.findall(r"`(\w+)`", labels)), what)
        for name, kind, labels, what in rows
    ]
    assert told == [(m.exported, m.kind, m.labels, m.help) for m in METRICS]
