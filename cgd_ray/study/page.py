"""A study as one HTML page that needs nothing but itself. Pure."""

from cgd_ray.study.results import StudyResult


def render_page(result: StudyResult) -> str:
    """Return the whole page."""
    return f"<!doctype html><title>{result.study}</title>"
