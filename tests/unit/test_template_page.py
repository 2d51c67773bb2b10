"""docs/templates.md is the code's own list, and a text cannot change under its version."""

import json
from pathlib import Path

from cgd_ray.templates import all_templates, page

REPO = Path(__file__).resolve().parents[2]
GOLDEN = REPO / "tests" / "golden" / "templates.json"


def test_the_page_is_what_the_code_says():
    committed = (REPO / "docs" / "templates.md").read_text(encoding="utf-8")
    assert committed == page(all_templates()), "python -m cgd_ray.templates > docs/templates.md"


def test_a_changed_text_is_a_changed_version():
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    found = {template.version: template.digest for template in all_templates()}
    changed = [version for version in golden if found.get(version) not in (None, golden[version])]
    assert not changed, f"{changed}: a new text needs a new version (its TEMPLATE constant)"
    assert found == golden, f"add the new versions to {GOLDEN.name}, take away the old ones"


def test_versions_name_one_text_each():
    versions = [template.version for template in all_templates()]
    assert len(set(versions)) == len(versions)
