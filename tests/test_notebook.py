"""The notebook of the documentation runs, and `fit` shows its line there as it should be."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import launching
import pytest
from training_runs import run_python

nbformat = pytest.importorskip("nbformat", reason="notebooks are run by the extra `notebook`")
nbclient = pytest.importorskip("nbclient", reason="notebooks are run by the extra `notebook`")
pytest.importorskip("ipykernel", reason="notebooks are run by the extra `notebook`")

NOTEBOOK = launching.ROOT / "docs" / "notebook.ipynb"
SECONDS = 900  # for a cell, on a machine that others load

# What jupyter_client warns of is its own matter.
pytestmark = pytest.mark.filterwarnings("ignore")


def executed(notebook: Any, directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs a notebook in place; returns the kinds of messages by which its cells have shown."""
    shown = []

    class Client(nbclient.NotebookClient):
        def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
            shown.append(msg["msg_type"])
            return super().process_message(msg, cell, cell_index)

    path = os.pathsep.join([str(launching.ROOT), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path.rstrip(os.pathsep))
    context = {"metadata": {"path": str(directory)}}
    Client(notebook, timeout=SECONDS, kernel_name="python3", resources=context).execute()
    return shown


def outputs(notebook: Any) -> list[tuple[str, str]]:
    """The kinds of the outputs of all cells and their texts, numbers and bars left out."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {"text/plain": output.get("text", "")})
            text = re.sub(r"[━─]+", "bar", data["text/plain"])
            text = re.sub(r"\d[\d,.:]*", "n", text)
            found.append((" ".join(sorted(data)), re.sub(r"parameters \w{16}\b", "hash", text)))
    return found


def test_the_notebook_shows_what_is_stored_in_it(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="draws curves")
    stored, again = (nbformat.read(str(NOTEBOOK), as_version=4) for _ in range(2))
    shown = executed(again, tmp_path, monkeypatch)
    assert outputs(again) == outputs(stored)
    kinds = [kind for kind, _ in outputs(again)]
    assert kinds.count("image/png text/plain") == 2
    assert "update_display_data" in shown, "the line is written over"
    lines = [text for _, text in outputs(again) if "bar" in text]
    assert lines == ["epoch n/n  bar  n/n  loss n  accuracy n%  n images/s  in n"] * 2
    assert (tmp_path / "digits.safetensors").exists()
    (share,) = re.findall(r"([\d.]+)% of these test digits", str(again))
    assert float(share) > 90


def test_a_line_is_left_and_no_garbage(tmp_path, monkeypatch):
    """Warnings and lines of a program come under it, and after an interrupt it stays."""
    source = """
import warnings
import numpy as np
import distnet

class Tells(distnet.Callback):
    def stepped(self, run, result):
        if run.num_done == 3:
            print("three")
            warnings.warn("a warning")
        if run.num_done == 7:
            raise KeyboardInterrupt

network = distnet.Network([distnet.Linear(2)], (3,))
try:
    labels, tells = [0, 1, 0, 1], [Tells()]
    distnet.fit(network, np.zeros((4, 3)), labels, steps=9, progress=True, callbacks=tells)
except KeyboardInterrupt:
    print("interrupted")
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    executed(notebook, tmp_path, monkeypatch)
    (cell,) = notebook.cells
    texts = [each.get("text") or each["data"]["text/plain"] for each in cell.outputs]
    assert sum(text.startswith("epoch ") for text in texts) == 1
    assert "".join(text for text in texts if "\n" in text).count("three\n") == 1
    assert any("UserWarning: a warning" in text for text in texts)
    assert any("interrupted\n" in text for text in texts)
    assert not any("\x1b" in text or "\r" in text for text in texts)


def test_nobody_else_loads_ipython():
    program = (
        "import sys, numpy, distnet; network = distnet.Network([distnet.Linear(2)], (3,));"
        "distnet.fit(network, numpy.zeros((4, 3)), [0, 1, 0, 1], steps=2, progress=True);"
        "sys.exit('IPython' in sys.modules)"
    )
    process = run_python("-c", program)
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")


def test_ipython_on_a_terminal_is_no_notebook(monkeypatch):
    from distnet.base import screen

    class Shell:
        pass

    class Module:
        shell: object = Shell()

        @classmethod
        def get_ipython(cls) -> object:
            return cls.shell

    monkeypatch.setitem(sys.modules, "IPython", Module)
    assert not screen._is_in_notebook()
    Module.shell = None
    assert not screen._is_in_notebook()
    Module.shell = type("Shell", (), {"kernel": 1})()
    assert screen._is_in_notebook()
