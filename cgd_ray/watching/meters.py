"""The catalogue's metrics on Ray's Prometheus port."""

from collections.abc import Sequence

from ray.util.metrics import Counter, Gauge

from cgd_ray.watching.catalogue import METRICS, TOTAL
from cgd_ray.watching.figures import Figure


class RunMeters:
    """Takes the figures of a run into this process's metrics; a Ray session must be up."""

    def __init__(self) -> None:
        # Ray adds the suffix itself.
        self._counters = {
            m.name: Counter(m.name.removesuffix(TOTAL), description=m.help, tag_keys=m.labels)
            for m in METRICS
            if m.kind == "counter" and "run" in m.labels
        }
        self._gauges = {
            m.name: Gauge(m.name, description=m.help, tag_keys=m.labels)
            for m in METRICS
            if m.kind == "gauge" and "run" in m.labels
        }

    def take(self, figures: Sequence[Figure]) -> None:
        """Add what counters grew by, and set gauges."""
        for figure in figures:
            if figure.name in self._counters:
                self._counters[figure.name].inc(figure.value, tags=dict(figure.labels))
            else:
                self._gauges[figure.name].set(figure.value, tags=dict(figure.labels))
