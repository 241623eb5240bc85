"""`bench device`: that it runs, on the processor, and that its checks find what is wrong."""

import json

from strict import Strict

from distnet.bench import main
from distnet.benchmarks import device as benchmark
from distnet.benchmarks.device import checks


def test_it_runs_and_says_what_holds(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "GOLDEN_CASES", ())  # the golden hashes have a test of their own
    path = tmp_path / "figures.json"
    assert main(["device", "--device", "numpy", "--quick", "--json", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "device numpy\nok    known answer of a tiny network" in shown
    assert shown.endswith(" s in all, 0 wrong\n")
    figures = json.loads(path.read_text())
    assert [len(figures[name]) for name in ("steps", "layers")] == [3, 19]
    assert all(min(rates) > 0 for _, _, _, *rates in figures["steps"])


def test_a_device_that_is_not_there_is_one_line(monkeypatch, capsys):
    def no_cupy(name):
        raise ImportError("no such module")

    monkeypatch.setattr("distnet.device.devices.import_module", no_cupy)
    assert main(["device"]) == 2
    assert capsys.readouterr().err.startswith("distnet: error: device cuda: found no CuPy (no such")


def test_its_checks_fail_on_a_device_that_is_wrong(monkeypatch):
    class Wrong(Strict):
        """Loses a bit of each number on its way back."""

        def to_host(self, array):
            array = super().to_host(array)
            return (array * (1 + 2**-10)).astype(array.dtype)

    named = dict(checks(Wrong(), quick=True))
    assert named["known answer of a tiny network"]().startswith("portable arithmetic on numpy")
    assert named["golden hash of mlp_adamw"]().startswith("found ")
    assert named["groups are micro-batches"]() == "the logits of micro-batch 0 are others"
    assert named["float32 near the CPU's"]().startswith("found a relative error of")
