"""The README's tree of the package names every module, and none that is gone."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DESCRIBED_AS_A_WHOLE = {"benchmarks", "lab"}


def test_tree_is_complete():
    text = (ROOT / "README.md").read_text()
    tree = text.split("```\ndistnet/\n")[1].split("```")[0]
    named = re.findall(r"^ +(\w+\.py) ", tree, flags=re.MULTILINE)
    modules = [
        path.name
        for path in (ROOT / "distnet").rglob("*.py")
        if path.name != "__init__.py" and path.parent.name not in DESCRIBED_AS_A_WHOLE
    ]
    assert sorted(named) == sorted(modules)
