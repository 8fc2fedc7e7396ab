"""The documentation: links lead somewhere, files that it names exist, the picture of the floors is what is enforced."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not {"runs", "data", "node_modules"} & set(path.relative_to(ROOT).parts)
    and not any(part.startswith(".") or part == "pmv" for part in path.relative_to(ROOT).parts)
)
"""All pages of the checkout; pmv/ holds links to folders that are looked at under their own names."""
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+?)\s*$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path):
    for link in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{link}: no such heading; there are {sorted(anchors(target))}"


@pytest.mark.parametrize("name", ["DEVELOPMENT.md", "docs/architecture.md", "docs/method.md"])
def test_files_that_are_named_exist(name: str):
    text = (ROOT / name).read_text(encoding="utf-8")
    files = set(re.findall(r"`((?:apps|stages|training|pmv|configs|assets|benchmarks|tests|docs)/[\w./]*)`", text))
    assert len(files) > 10
    made_up = {file for file in files if "NAME" in file or "DOMAIN" in file}
    missing = sorted(file for file in files - made_up if not (ROOT / file).exists())
    assert not missing


def test_every_page_of_docs_is_in_the_index():
    docs = ROOT / "docs"
    linked = set(_LINK.findall((docs / "README.md").read_text(encoding="utf-8")))
    assert {path.name for path in docs.glob("*.md")} - {"README.md"} <= linked


def test_the_picture_shows_the_layers_that_are_enforced():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    picture = _FENCE.search((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert picture is not None
    rows = [re.findall(r"│ (\w+) ", line) for line in picture[0].splitlines()]
    assert [" | ".join(row) for row in rows if row] == layers
