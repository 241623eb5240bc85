"""Pages, scripts and the check of the book belong together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from distnet.experiments import Lab, Required, exactly, load
from distnet.parallel import SerialCommunicator

BOOK = Path(__file__).resolve().parents[2] / "docs" / "book"
PAGES = sorted(BOOK.rglob("*.md"))
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
MAX_PICTURE_BYTES = 60_000

check = load(BOOK / "check.py")


def links(page: Path) -> list[Path]:
    targets = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    return [(page.parent / target).resolve() for target in targets]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(BOOK)))
def test_links_lead_somewhere(page):
    assert [str(target) for target in links(page) if not target.exists()] == []


def test_every_script_with_requirements_is_checked():
    scripts = [p for p in BOOK.glob("*/*.py") if re.search(r"^REQUIRED\b", p.read_text(), re.M)]
    assert sorted(str(p.relative_to(BOOK)) for p in scripts) == sorted(check.EXPERIMENTS)


def test_every_script_is_on_a_page():
    linked = {target for page in PAGES for target in links(page)}
    assert sorted(str(p) for p in set(BOOK.glob("*/*.py")) - linked) == []


def test_every_picture_is_on_a_page_and_small():
    linked = {target for page in PAGES for target in links(page)}
    pictures = sorted(BOOK.glob("*/*.png"))
    assert [str(p) for p in pictures if p not in linked] == []
    assert [str(p) for p in pictures if p.stat().st_size > MAX_PICTURE_BYTES] == []


def test_names_are_unique_over_the_book():
    stems = [path.stem for path in BOOK.glob("*/*.py")]
    assert len(set(stems)) == len(stems)


def test_only_selects_ids_chapters_and_scripts():
    everything = [each.script for each in check.select("")]
    assert everything == list(check.EXPERIMENTS)
    parts = [each.script for part in (("ch08", ""), ("", "ch08")) for each in check.select(*part)]
    assert sorted(parts) == sorted(everything)  # as CI runs them
    selected = [each.script for each in check.select("A5, ch02")]
    assert selected == [s for s in everything if s.startswith("ch02/") or "apples" in s]
    with pytest.raises(ValueError, match="found 'A99'"):
        check.select("A5,A99")


def test_results_go_to_a_directory_for_each_chapter(tmp_path):
    (experiment,) = check.select("nand_adder")
    verdicts = experiment.judge(Lab(SerialCommunicator(), tmp_path, quick=True))
    assert all(verdict.holds for verdict in verdicts)
    assert (tmp_path / "ch02" / "nand_adder.json").exists()


@pytest.mark.parametrize(("right", "code"), [(1, 0), (2, 1)])
def test_the_exit_code_says_whether_all_requirements_hold(
    right, code, tmp_path, monkeypatch, capsys
):
    required = [Required("A0", "one", "one", exactly(right))]
    experiment = check.Experiment("ch00/one.py", lambda lab: {"one": 1}, required)
    monkeypatch.setattr(check, "select", lambda only, skip: [experiment])
    monkeypatch.setattr("sys.argv", ["check.py", "--out", str(tmp_path)])
    assert check.check(SerialCommunicator()) == code
    assert f"1 requirements, {code} failed" in capsys.readouterr().out
