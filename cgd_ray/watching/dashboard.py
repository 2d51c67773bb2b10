"""The Grafana dashboard of the catalogue's metrics: pure.

`python -m cgd_ray.watching.dashboard > cluster/grafana/cgd.json` writes the file that is shipped.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_RUN = '{run=~"$run"}'
_RATE = "[$__rate_interval]"
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH, _HEIGHT, _COLUMNS = 8, 8, 24  # of Grafana's grid


@dataclass(frozen=True, slots=True)
class Query:
    """A line, or several, of a panel."""

    expression: str  # PromQL
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture."""

    title: str
    unit: str  # as Grafana names units
    queries: tuple[Query, ...]
    kind: str = "timeseries"


def _now(name: str, legend: str = "{{run}}", by: str = "run") -> Query:
    return Query(f"max by ({by}) (ray_{name}{_RUN})", legend)


def _rate(name: str, legend: str = "{{run}}", by: str = "run") -> Query:
    return Query(f"sum by ({by}) (rate(ray_{name}{_RUN}{_RATE}))", legend)


def _share(part: str, whole: str, legend: str, by: str = "run") -> Query:
    """Return the ratio of two rates; each is a metric with its selector."""
    top, bottom = (f"sum by ({by}) (rate(ray_{name}{_RATE}))" for name in (part, whole))
    return Query(f"{top} / {bottom}", legend)


_ROWS, _CALLS = f"cgd_rows_total{_RUN}", f"cgd_teacher_calls_total{_RUN}"
_TRAINING_S = f"cgd_training_seconds_total{_RUN}"

SECTIONS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Stages",
        (
            Panel(
                "Done",
                "percentunit",
                (
                    Query(
                        f"max by (run, stage) (ray_cgd_stage_rows{_RUN}) / "
                        f"max by (run, stage) (ray_cgd_stage_rows_expected{_RUN})",
                        "{{stage}}",
                    ),
                    Query(
                        f"max by (run) (ray_cgd_training_step{_RUN}) / "
                        f"max by (run) (ray_cgd_training_steps_expected{_RUN})",
                        "training",
                    ),
                ),
                "bargauge",
            ),
            Panel(
                "Rows a second",
                "cps",
                (_rate("cgd_rows_total", "{{stage}} {{state}}", "stage, state"),),
            ),
            Panel(
                "Failed or rejected",
                "percentunit",
                (_share('cgd_rows_total{run=~"$run", state!="ok"}', _ROWS, "{{stage}}", "stage"),),
            ),
        ),
    ),
    (
        "Generation",
        (
            Panel(
                "Tokens of drafts a second",
                "cps",
                (_rate("cgd_sampler_tokens_total", "{{kind}}", "kind"),),
            ),
            Panel("Drafts that wait for the teacher", "short", (_now("cgd_teacher_rows_waiting"),)),
            Panel(
                "Teacher calls a second",
                "reqps",
                (_rate("cgd_teacher_calls_total", "{{status}}", "status"),),
            ),
            Panel(
                "Teacher tokens a second",
                "cps",
                (_rate("cgd_teacher_tokens_total", "{{kind}}", "kind"),),
            ),
            Panel(
                "Teacher calls at once",
                "short",
                (
                    _now("cgd_teacher_calls_in_flight", "under way"),
                    _now("cgd_teacher_calls_allowed", "allowed"),
                ),
            ),
            Panel(
                "Refused (429), failed and repeated calls",
                "percentunit",
                (
                    _share(
                        'cgd_teacher_calls_total{run=~"$run", status!="ok"}',
                        _CALLS,
                        "not answered",
                    ),
                    _share(f"cgd_teacher_retries_total{_RUN}", _CALLS, "asked again"),
                ),
            ),
            Panel(
                "Seconds an answer takes",
                "s",
                (
                    _share(
                        f"cgd_teacher_answer_seconds_total{_RUN}",
                        'cgd_teacher_calls_total{run=~"$run", status="ok"}',
                        "mean",
                    ),
                    _now("cgd_teacher_pause_seconds", "pause that the teacher asked for"),
                ),
            ),
            Panel(
                "Dollars spent",
                "currencyUSD",
                (
                    _now("cgd_teacher_spent_dollars", "spent"),
                    _now("cgd_teacher_at_risk_dollars", "perhaps more, for calls without answer"),
                ),
            ),
            Panel(
                "Dollars an hour",
                "currencyUSD",
                (
                    Query(
                        f"3600 * sum by (run) (rate(ray_cgd_teacher_cost_dollars_total{_RUN}"
                        f"{_RATE}))",
                        "{{run}}",
                    ),
                ),
            ),
        ),
    ),
    (
        "Training",
        (
            Panel("Loss, nats a target token", "short", (_now("cgd_training_loss_nats"),)),
            Panel(
                "Tokens a second of the steps",
                "cps",
                (
                    Query(
                        f"sum by (kind) (rate(ray_cgd_training_tokens_total{_RUN}{_RATE})) / "
                        f"ignoring (kind) group_left sum(rate(ray_{_TRAINING_S}{_RATE}))",
                        "{{kind}}",
                    ),
                ),
            ),
            Panel("Steps a second", "ops", (_rate("cgd_training_steps_total"),)),
            Panel(
                "Share of a step that waits for data",
                "percentunit",
                (_share(f"cgd_training_data_wait_seconds_total{_RUN}", _TRAINING_S, "{{run}}"),),
            ),
            Panel("Model FLOPs utilisation", "percentunit", (_now("cgd_training_mfu_ratio"),)),
            Panel("Padding", "percentunit", (_now("cgd_training_padding_ratio"),)),
            Panel("Gradient norm", "short", (_now("cgd_training_gradient_norm"),)),
            Panel("Learning rate", "sci", (_now("cgd_training_learning_rate"),)),
            Panel("Peak memory of rank 0", "bytes", (_now("cgd_training_peak_memory_bytes"),)),
        ),
    ),
    (
        "Serving",
        (
            Panel(
                "Requests a second",
                "reqps",
                (
                    Query(
                        f"sum by (path, status) (rate(ray_cgd_gateway_requests_total{_RATE}))",
                        "{{path}} {{status}}",
                    ),
                ),
            ),
            Panel(
                "Seconds a request takes",
                "s",
                tuple(
                    Query(
                        f"histogram_quantile({share}, sum by (le) "
                        f"(rate(ray_cgd_gateway_request_seconds_bucket{_RATE})))",
                        legend,
                    )
                    for share, legend in ((0.5, "median"), (0.95, "95 %"), (0.99, "99 %"))
                ),
            ),
            Panel(
                "Requests under way",
                "short",
                (Query("sum(ray_cgd_gateway_in_flight)", "all gateways"),),
            ),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    return {
        "uid": "cgd-ray",
        "title": "Critique-guided distillation",
        "description": "Stages, teacher, training and serving of cgd_ray runs",
        "tags": ["cgd_ray", "ray"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": list(_panels()),
    }


def _variables() -> list[dict[str, Any]]:
    names = "ray_cgd_stage_rows|ray_cgd_training_step"
    query = f'label_values({{__name__=~"{names}"}}, run)'
    return [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        {
            "name": "run",
            "label": "Run",
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": query, "refId": "runs"},
            "refresh": 2,  # whenever the time range changes
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "current": {"text": ["All"], "value": ["$__all"]},
        },
    ]


def _panels() -> Iterator[dict[str, Any]]:
    number, top = 0, 0
    for title, panels in SECTIONS:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": top, "w": _COLUMNS, "h": 1},
            "panels": [],
        }
        a_row = _COLUMNS // _WIDTH
        for place, panel in enumerate(panels):
            number += 1
            x, y = place % a_row * _WIDTH, top + 1 + place // a_row * _HEIGHT
            yield _panel(number, panel, {"x": x, "y": y, "w": _WIDTH, "h": _HEIGHT})
        top += 1 + -(-len(panels) // a_row) * _HEIGHT


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": _OPTIONS[panel.kind],
        "targets": _targets(panel.queries),
    }


_OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "bargauge": {
        "displayMode": "basic",
        "orientation": "horizontal",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    },
}


def _targets(queries: Sequence[Query]) -> list[dict[str, Any]]:
    return [
        {
            "refId": chr(ord("A") + place),
            "datasource": _SOURCE,
            "expr": query.expression,
            "legendFormat": query.legend,
        }
        for place, query in enumerate(queries)
    ]


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=1))
