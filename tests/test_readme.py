"""The README's tree names every folder of the package, and none that is gone."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_tree_is_complete():
    text = (ROOT / "README.md").read_text()
    tree = text.split("```\ndistnet/\n")[1].split("```")[0]
    named = re.findall(r"^  (\S+)/ ", tree, flags=re.MULTILINE)
    packages = [path.parent for path in (ROOT / "distnet").glob("*/**/__init__.py")]
    folders = [str(path.relative_to(ROOT / "distnet")) for path in packages]
    missing, gone = sorted(set(folders) - set(named)), sorted(set(named) - set(folders))
    assert not missing, f"README.md, The package: add a line with a sentence for {missing}"
    assert not gone, f"README.md, The package: remove the lines of {gone}"
    assert len(named) == len(set(named))
