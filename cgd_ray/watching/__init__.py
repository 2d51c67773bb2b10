"""What a run shows while it works: figures for Prometheus, a dashboard, a status page."""
