"""The pages for readers are true: links, names of files and flags, and every block that can run.

The blocks of the README, the tutorials and some others run in order, a page in one directory. A
Python block whose first line is `# NAME.py` is saved under that name, and a later block starts or
imports it. One that cannot run here has its reason before it: `<!-- not run: REASON -->`.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import launching
import pytest

from distnet import bench
from distnet.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
CLASSROOM = sorted((ROOT / "docs" / "classroom").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *CLASSROOM]
ALL_PAGES = [*PAGES, *sorted((ROOT / "docs" / "book").rglob("*.md"))]
WITH_BLOCKS = [
    page
    for page in PAGES
    if page.name.startswith(("README", "first-hour", "tutorial", "data", "models"))
    or page in CLASSROOM
]
LINK = re.compile(r"\]\(([^)]+)\)")
NAMED_FILE = re.compile(r"`([\w.-]+/[\w./-]+\.(?:py|sh|sbatch|yaml|toml))`")
FLAG = re.compile(r"(?<![\w-])--([a-z][a-z0-9-]*)")
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?```(?P<kind>sh|python)\n(?P<code>.*?)^```",
    re.DOTALL | re.MULTILINE,
)
SECONDS = 900  # for a block, on a machine that others load
STOP_UNLESS_75 = "code=$?; [ $code = 75 ] || exit $code"  # 75: stopped early, as was asked


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


@pytest.mark.parametrize("page", ALL_PAGES, ids=name_of)
def test_files_that_are_named_exist(page):
    """From the checkout, the package or the page, as pages write."""
    roots = ROOT, ROOT / "distnet", page.parent
    named = NAMED_FILE.findall(page.read_text())
    assert [name for name in named if not any((root / name).exists() for root in roots)] == []


def test_every_page_is_linked_from_another():
    links = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in LINK.findall(page.read_text())
        if "://" not in link
    }
    assert [name_of(page) for page in PAGES[1:] if page not in links] == []


@cache
def known_flags():
    """Those in the help of the commands, and those that a program spells out."""
    commands = [*COMMANDS, *(f"bench {name}" for name in bench.NAMES)]
    texts = [
        subprocess.run(
            [sys.executable, "-m", "distnet", *command.split(), "--help"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for command in commands
    ]
    for folder in ("distnet", "launch", "docs", "tests"):
        files = (ROOT / folder).rglob("*")
        texts += [path.read_text() for path in files if path.suffix in {".py", ".sh", ".sbatch"}]
    return set(FLAG.findall("\n".join(texts)))


@pytest.mark.parametrize("page", ALL_PAGES, ids=name_of)
def test_flags_that_are_named_exist(page):
    assert sorted(set(FLAG.findall(page.read_text())) - known_flags()) == []


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: `kind` is sh or python, `reason` why it cannot run here."""

    kind: str
    code: str
    reason: str | None

    @property
    def module(self):
        """The name under which it is saved, None if it runs at once."""
        named = re.match(r"# (\w+)\.py\n", self.code)
        return named and named[1]

    @property
    def file_name(self):
        return f"{self.module}.py" if self.module else f"block.{self.kind}"

    @property
    def command(self):
        if self.kind == "python":
            return [sys.executable, self.file_name]
        shell = f"trap '{STOP_UNLESS_75}' ERR; . ./{self.file_name}"
        return ["bash", "-Euo", "pipefail", "-c", shell]


def blocks_of(text):
    return [Block(found["kind"], found["code"], found["reason"]) for found in BLOCK.finditer(text)]


def run_block(block, directory):
    """Saves and runs a block in `directory`; returns what it prints."""
    (directory / block.file_name).write_text(block.code)
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(
        block.command,
        cwd=directory,
        env={**os.environ, **launching.SETTINGS, "PATH": here},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert run.returncode == 0, f"{block.code}\n{run.stdout}\n{run.stderr}"
    return run.stdout


def on_each_mpi(page):
    """README's commands run with every MPI; those of other pages would say nothing more of it."""
    marks = [pytest.mark.mpi_launch] if page == ROOT / "README.md" else []
    return pytest.param(page, id=name_of(page), marks=marks)


@pytest.mark.parametrize("page", [on_each_mpi(page) for page in WITH_BLOCKS])
def test_blocks_run(page, tmp_path):
    """Those of an exercise where its solution is."""
    blocks = [block for block in blocks_of(page.read_text()) if not block.reason]
    if page in CLASSROOM:
        shutil.copytree(CLASSROOM[0].parent / "solutions", tmp_path, dirs_exist_ok=True)
    outputs = []
    for number, block in enumerate(blocks):
        if block.module:
            (tmp_path / block.file_name).write_text(block.code)
            later = "".join(each.code for each in blocks[number + 1 :])
            assert block.module in later, f"{block.file_name} is never started"
        else:
            outputs.append(run_block(block, tmp_path))
    assert outputs or page in CLASSROOM
    if page == ROOT / "README.md":
        check_the_claims_of_the_readme(outputs)
    if page.name == "first-hour.md":
        check_the_figures_of_the_first_hour(page.read_text(), "".join(outputs))


def check_the_claims_of_the_readme(outputs):
    """A program prints the same alone and on ranks, six runs end with one hash; what they print."""
    (alone, on_ranks), _, same_bits, portable, compared, doctor = (
        out.splitlines() for out in outputs
    )
    assert alone == on_ranks
    assert same_bits[-1].startswith("      6 ")
    assert compared[-1].startswith("the same bits")
    assert sum(line.startswith("training will work") for line in doctor) == 2
    readme = (ROOT / "README.md").read_text()
    shown = readme.split("```text\n")[1].split("```")[0].splitlines()
    assert shown[2] in same_bits, "the table of the epochs has other columns now"
    assert portable[-1] in readme.splitlines(), "this machine has another hash than the reader's"


def check_the_figures_of_the_first_hour(page, printed):
    """Accuracies and a hash are those of the page, where its NumPy and its kernels compute."""
    kernels = re.search(r"^ok +kernels .*$", page, re.MULTILINE)[0]
    figures = re.findall(r"^(?:\[0|test accuracy|runs/first on).*$", page, re.MULTILINE)
    assert len(figures) == 7
    if kernels in printed.splitlines():
        assert [figure for figure in figures if figure not in printed.splitlines()] == []


def test_blocks_are_found_with_their_reasons():
    text = (
        "```sh\necho 1\n```\n<!-- not run: too long -->\n```python\n# a.py\n```\n```text\n1\n```\n"
    )
    first, second = blocks_of(text)
    assert (first.kind, first.code, first.reason) == ("sh", "echo 1\n", None)
    assert (second.file_name, second.reason) == ("a.py", "too long")


def test_a_block_that_fails_is_noticed(tmp_path):
    for kind, code in (("sh", "false | true\ntrue\n"), ("sh", "x=$none\n"), ("python", "1 / 0\n")):
        with pytest.raises(AssertionError):
            run_block(Block(kind, code, None), tmp_path)
    assert run_block(Block("sh", "(exit 75)\necho on\n", None), tmp_path) == "on\n"
