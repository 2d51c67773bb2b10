"""What passes the gateway, on Ray's Prometheus port beside Ray Serve's and vLLM's own metrics."""

from ray.util.metrics import Counter, Gauge, Histogram

_BOUNDARIES_S = [0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300]


class GatewayMeter:
    """`cgd_gateway_requests` by path and status, their seconds, and how many are under way."""

    def __init__(self) -> None:
        self._requests = Counter(
            "cgd_gateway_requests",
            description="Requests by path and status; 401, 413, 429 and so on are the gateway's",
            tag_keys=("path", "status"),
        )
        self._seconds = Histogram(
            "cgd_gateway_request_seconds",
            description="Seconds from a request's headers to the end of its answer",
            boundaries=_BOUNDARIES_S,
            tag_keys=("path",),
        )
        self._in_flight = Gauge(
            "cgd_gateway_in_flight", description="Requests under way or waiting for an engine"
        )

    def started(self, num_in_flight: int) -> None:
        """A request was admitted; so many are under way."""
        self._in_flight.set(num_in_flight)

    def finished(self, path: str, status: int, seconds: float, num_in_flight: int) -> None:
        """A request ended; `path` is a route or "other"."""
        self._requests.inc(tags={"path": path, "status": str(status)})
        self._seconds.observe(seconds, tags={"path": path})
        self._in_flight.set(num_in_flight)
