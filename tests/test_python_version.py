"""A Python that is too old is refused in one line, by pip too, which runs `distnet/__init__.py`."""

import ast
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
INIT = ROOT / "distnet" / "__init__.py"


def test_an_old_python_is_refused(monkeypatch):
    monkeypatch.setattr("sys.version_info", (3, 10, 13))
    monkeypatch.setattr("sys.version", "3.10.13 (main)")
    with pytest.raises(SystemExit) as refusal:
        runpy.run_path(str(INIT))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"
    assert refusal.value.code == "distnet needs Python 3.11 or later, found 3.10.13"


def test_windows_is_refused(monkeypatch):
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(SystemExit) as refusal:
        runpy.run_path(str(INIT))
    assert refusal.value.code == "distnet needs Linux or macOS, found Windows; run it in WSL there"


def test_an_old_python_can_read_the_refusal():
    ast.parse(INIT.read_text(), feature_version=(3, 8))


def test_the_version_is_found_before_anything_is_installed():
    """As pip does it: neither distnet nor what it depends on can be imported."""
    code = f"import runpy; print(runpy.run_path({str(INIT)!r})['__version__'])"
    run = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout[0].isdigit()
