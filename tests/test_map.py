"""docs/map.md has a line for every file of the package, and none for a file that is gone."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOT_LISTED = {"__init__.py"}


def on_disk():
    """Modules and folders of the package, and what starts runs."""
    sources = [path for kind in ("*.py", "*.cu") for path in (ROOT / "distnet").rglob(kind)]
    modules = [path for path in sources if path.name not in NOT_LISTED]
    packages = [path.parent for path in (ROOT / "distnet").rglob("__init__.py")]
    starters = [ROOT / "launch", *filter(Path.is_file, (ROOT / "launch").iterdir())]
    return [str(path.relative_to(ROOT)) for path in modules + packages + starters]


def on_map(text):
    """Each heading's folder, and each file as folder/name."""
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        folder = section.split("`")[1]
        yield folder
        yield from (f"{folder}/{name}" for name in re.findall(r"^\* `(.+?)`: \S", section, re.M))


def complaints(text, files):
    """What has to be changed in docs/map.md, a line each."""
    listed = Counter(on_map(text))
    for path in sorted(set(files) - set(listed)):
        folder, _, name = path.rpartition("/")
        yield f"add under the heading of {folder}: * `{name}`: what it is"
    yield from (f"remove what is gone: {path}" for path in sorted(set(listed) - set(files)))
    yield from (f"is there {n} times: {path}" for path, n in listed.items() if n > 1)


def test_every_file_is_on_the_map():
    wrong = list(complaints((ROOT / "docs/map.md").read_text(), on_disk()))
    assert not wrong, "docs/map.md: " + "; ".join(wrong)


@pytest.mark.parametrize(
    "lines, complaint",
    [
        ("* `x.py`: one", "add under the heading of a: * `y.py`: what it is"),
        ("* `x.py`: one\n* `y.py`: two\n* `z.py`: gone", "remove what is gone: a/z.py"),
        ("* `x.py`: one\n* `y.py`: two\n* `x.py`: one", "is there 2 times: a/x.py"),
        ("* `x.py`: one\n* `y.py`: two\n\n## `b`\n", "remove what is gone: b"),
    ],
)
def test_the_check_says_what_to_do(lines, complaint):
    text = f"# Map\n\n## `a`\n\nWhat is in a.\n\n{lines}\n"
    assert list(complaints(text, ["a", "a/x.py", "a/y.py"])) == [complaint]
