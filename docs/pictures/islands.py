"""Draws the test loss of runs with `--sync local` against how rarely they synchronise.

for k in 1 2 4 8; do for h in 10 50 200; do
    python -m distnet.train --model two_layer --epochs 2 --out runs/islands/k$k-h$h \\
        --sync local --islands $k --sync-every $h
done; done
python -m distnet.train --model two_layer --epochs 2 --out runs/islands/step
python docs/pictures/islands.py runs/islands --out docs/pictures/islands.png
"""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from distnet.experiments.pictures import MARKERS, write_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curves = dict[int, dict[int, float]]  # by islands, by steps between synchronisations


def results(directory: Path) -> tuple[Curves, float | None]:
    """The test losses of the runs in a directory, and that of the one that is synchronous."""
    curves: Curves = {}
    synchronous = None
    for path in sorted(directory.glob("*/summary.json")):
        loss = json.loads(path.read_text())["test_loss"]
        config = tomllib.loads((path.parent / "config.toml").read_text())
        if config["sync"] == "step":
            synchronous = loss
        else:
            curves.setdefault(config["islands"], {})[config["sync_every"]] = loss
    return dict(sorted(curves.items())), synchronous


def draw(figure: Figure, curves: Curves, synchronous: float | None) -> None:
    axes = figure.subplots()
    for (islands, losses), marker in zip(curves.items(), MARKERS, strict=False):
        every = sorted(losses)
        name = "1 island" if islands == 1 else f"{islands} islands"
        axes.plot(every, [losses[h] for h in every], marker=marker, label=name)
    if synchronous is not None:
        axes.axhline(synchronous, color="gray", linestyle="--", label="synchronous")
    axes.set(xscale="log", xlabel="steps between synchronisations", ylabel="test loss")
    axes.set_xticks(ticks := sorted({h for losses in curves.values() for h in losses}))
    axes.set_xticklabels(map(str, ticks))
    axes.minorticks_off()
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/islands.png"))
    options = parser.parse_args()
    found = results(options.runs)
    write_picture(options.out, lambda figure: draw(figure, *found), (7, 3.8))


if __name__ == "__main__":
    main()
