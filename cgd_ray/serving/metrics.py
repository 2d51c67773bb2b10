"""What passes the gateway, on Ray's Prometheus port beside Ray Serve's and vLLM's own metrics."""

from ray.util.metrics import Counter, Gauge, Histogram

from cgd_ray.watching.catalogue import TOTAL, metric

_BOUNDARIES_S = [0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300]


class GatewayMeter:
    """Requests by path and status, their seconds, and how many are under way."""

    def __init__(self) -> None:
        requests = metric("cgd_gateway_requests_total")
        seconds, in_flight = metric("cgd_gateway_request_seconds"), metric("cgd_gateway_in_flight")
        # Ray adds the counter's suffix itself.
        self._requests = Counter(
            requests.name.removesuffix(TOTAL), description=requests.help, tag_keys=requests.labels
        )
        self._seconds = Histogram(
            seconds.name,
            description=seconds.help,
            boundaries=_BOUNDARIES_S,
            tag_keys=seconds.labels,
        )
        self._in_flight = Gauge(in_flight.name, description=in_flight.help)

    def started(self, num_in_flight: int) -> None:
        """A request was admitted; so many are under way."""
        self._in_flight.set(num_in_flight)

    def finished(self, path: str, status: int, seconds: float, num_in_flight: int) -> None:
        """A request ended; `path` is a route or "other"."""
        self._requests.inc(tags={"path": path, "status": str(status)})
        self._seconds.observe(seconds, tags={"path": path})
        self._in_flight.set(num_in_flight)
