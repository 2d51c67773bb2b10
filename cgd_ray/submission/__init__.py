"""Submitting to a cluster: what is packed, what is refused, and how a job is followed.

All of it is plain HTTP to Ray's Jobs API, so that the client starts at once, loads no cluster
library and can lose its connection at any moment.
"""
