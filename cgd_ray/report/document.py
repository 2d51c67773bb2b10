"""The shell of every page that we write: one file whose own style and script alone may run."""

import base64
import hashlib
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from string import Template


def html_document(title: str, style: str, body: str, script: str = "") -> str:
    """Return a whole page, to be written as UTF-8 to a file of any name.

    Its content security policy allows this one style and this one script, and no request at all.

    Args:
        title: as text.
        style: CSS.
        body: HTML, escaped where it holds others' text.
        script: JavaScript, run at the end of the body; "": none.
    """
    page = Template(page_part("document.html")).substitute(
        policy=(
            f"default-src 'none'; style-src {_source_hash(style)}; "
            f"script-src {_source_hash(script)}; "
            "img-src data:; base-uri 'none'; form-action 'none'"
        ),
        title=escape(title),
        style=style,
        body=body,
        script=f"<script>{script}</script>\n" if script else "",
    )
    # A lone surrogate in a name would make the page impossible to write as UTF-8.
    return page.encode("utf-8", "replace").decode("utf-8")


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return names and texts as the entries of a description list."""
    return "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in pairs)


def page_part(name: str, package: str = "cgd_ray.report") -> str:
    """Return a file that pages are made of."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


def _source_hash(text: str) -> str:
    if not text:
        return "'none'"
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
