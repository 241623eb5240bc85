"""docs/map.md has a line for every file of the package, and none for a file that is gone."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOT_LISTED = {"__init__.py", "__main__.py", "py.typed"}


def folders_on_disk():
    packages = [path.parent for path in (ROOT / "distnet").rglob("__init__.py")]
    return {str(path.relative_to(ROOT)) for path in packages} | {"launch"}


def sections(text):
    """The files listed under each folder's heading: {"distnet/nn": ["layer.py", ...], ...}."""
    parts = re.split(r"^## `(.+)`$", text, flags=re.MULTILINE)[1:]
    listed = (re.findall(r"^\* `(.+?)`: \S", part, flags=re.MULTILINE) for part in parts[1::2])
    return dict(zip(parts[::2], listed, strict=True))


def differences(text, folders, files_of):
    """What has to be changed in docs/map.md, a line each."""
    found = sections(text)
    for folder in sorted(folders | set(found)):
        if folder not in found:
            yield f"add the heading: ## `{folder}`"
        if folder not in folders:
            yield f"remove the heading, the folder is gone: ## `{folder}`"
            continue
        listed, files = found.get(folder, []), files_of(folder)
        yield from (
            f"under ## `{folder}` add: * `{name}`: what it is" for name in files - set(listed)
        )
        yield from (
            f"under ## `{folder}` remove, the file is gone: {name}" for name in set(listed) - files
        )
        yield from (
            f"under ## `{folder}` is twice: {name}"
            for name in set(listed)
            if listed.count(name) > 1
        )


def files_on_disk(folder):
    """Modules of a package; every file elsewhere."""
    pattern = "*" if folder == "launch" else "*.py"
    paths = (ROOT / folder).glob(pattern)
    return {path.name for path in paths if path.is_file()} - NOT_LISTED


def test_every_file_is_on_the_map():
    wrong = list(differences((ROOT / "docs/map.md").read_text(), folders_on_disk(), files_on_disk))
    assert not wrong, "docs/map.md: " + "; ".join(wrong)


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("## `a`\n* `x.py`: one\n", "under ## `a` add: * `y.py`: what it is"),
        (
            "## `a`\n* `x.py`: one\n* `y.py`: two\n* `z.py`: gone\n",
            "under ## `a` remove, the file is gone: z.py",
        ),
        ("## `a`\n* `x.py`: one\n* `y.py`: two\n* `x.py`: one\n", "under ## `a` is twice: x.py"),
        (
            "## `a`\n* `x.py`: one\n* `y.py`: two\n## `b`\n",
            "remove the heading, the folder is gone: ## `b`",
        ),
        ("no heading", "add the heading: ## `a`"),
    ],
)
def test_the_check_says_what_to_do(text, complaint):
    assert complaint in differences(text, {"a"}, lambda folder: {"x.py", "y.py"})
