"""The site of the documentation: every page is in it, links lead where they do elsewhere.

`.ci/run` builds it, without warnings, with the extra `docs`.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

import distnet

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
CONFIG = (ROOT / "mkdocs.yml").read_text()
GENERATED = {"index.md", "api/index.md"}


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("site_hooks", DOCS / "site_hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_in_the_site():
    nav = CONFIG.partition("\nnav:\n")[2]
    listed = re.findall(r"[\w/-]+\.md", nav)
    assert len(listed) == len(set(listed))
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert sorted(pages ^ (set(listed) - GENERATED)) == [], (
        "add it to, or remove it from mkdocs.yml"
    )


@pytest.mark.parametrize(
    "page, link, expected",
    [
        ("index.md", "docs/design.md", "design.md"),
        ("index.md", "docs/scaling.md#what-is-sent", "scaling.md#what-is-sent"),
        ("index.md", "#commands-and-files", "#commands-and-files"),
        ("design.md", "portable.md", "portable.md"),
        ("design.md", "../README.md", "index.md"),
        ("classroom/README.md", "../../README.md#if-the-first-run-fails", None),
        ("classroom/README.md", "allreduce.py", "allreduce.py"),
        (
            "book/ch03/README.md",
            "../../../distnet/nn/losses.py",
            "../../source/distnet/nn/losses.py",
        ),
        ("design.md", "absent.md", "absent.md"),
    ],
)
def test_links_in_the_site(hooks, page, link, expected):
    expected = expected or "../index.md#if-the-first-run-fails"
    assert hooks.in_site(link, page) == expected


def test_names_of_headings_are_selectors(hooks):
    assert hooks.name_of_heading("1-install") == "n-1-install"
    assert hooks.name_of_heading("where-next") == "where-next"


def test_files_that_come_along(hooks):
    text = "[a](../distnet/train.py) [b](design.md) [c](../absent.py) [d](https://x.y/z.py)"
    assert list(hooks.outside({"portable.md": text})) == ["distnet/train.py"]


def test_the_reference_has_all_that_is_public(hooks):
    pages = hooks.api_pages(hooks.names_by_module())
    listed = set(re.findall(r"\[(\w+)\]\(", pages["api/index.md"]))
    shown = re.findall(r"^::: .*\.(\w+)$", "\n".join(pages.values()), re.MULTILINE)
    public = set(distnet.__all__) - {"__version__"}
    assert listed >= public and set(shown) >= public
    assert "::: distnet.training.fit.fit\n" in pages["api/program.md"], "where its docstring is"
