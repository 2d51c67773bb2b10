"""The page at `/`: files that hold no secret, so they need no key; what they ask for does."""

from importlib import resources

from cgd_ray.serving.gateway import Page

# Nothing but our own script and style runs, nothing leaves for another host, nobody frames it.
_HEADERS = (
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-cache"),
)
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/playground.js": ("playground.js", "text/javascript; charset=utf-8"),
    "/playground.css": ("playground.css", "text/css; charset=utf-8"),
}


def playground_pages() -> dict[str, Page]:
    """Return the page's files by path."""
    folder = resources.files("cgd_ray.serving") / "page"
    return {
        path: Page(kind, (folder / name).read_bytes(), _HEADERS)
        for path, (name, kind) in _FILES.items()
    }
