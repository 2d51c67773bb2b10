"""Ids of the served models."""

BASE = "base"  # the untrained student
STUDENT = "student"  # the trained one
