"""The pages for readers: their links lead somewhere, the files that they name exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)]+)\)")
NAMED_FILE = re.compile(r"`([\w.-]+/[\w./-]+\.(?:py|sh|sbatch|yaml|toml))`")


def name_of(page):
    return str(page.relative_to(ROOT))


def anchors(page):
    """The headings of a page, as GitHub spells them in links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def leads_somewhere(page, link):
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    return target.exists() and (not anchor or anchor in anchors(target))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert [link for link in links if not leads_somewhere(page, link)] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_exist(page):
    """From the checkout, or from the package, as the pages about it write."""
    named = NAMED_FILE.findall(page.read_text())
    assert [n for n in named if not any((ROOT / r / n).exists() for r in (".", "distnet"))] == []


def test_every_page_is_linked_from_another():
    links = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in LINK.findall(page.read_text())
        if "://" not in link
    }
    assert [name_of(page) for page in PAGES[1:] if page not in links] == []
