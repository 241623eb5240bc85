"""Draws what `python -m distnet.bench scaling --json FILE` measured, a panel for each file.

python docs/pictures/scaling.py b256.json b100.json --out docs/pictures/scaling.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distnet.experiments.pictures import MARKERS, write_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def curves(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Images per second by number of ranks: ours, the limit of the hardware, PyTorch's."""
    lines = {
        "distnet": [row["images_per_second"] for row in rows],
        "copies that never communicate": [
            row["images_per_second"] / row["of_copies"] for row in rows
        ],
    }
    if all("of_ddp" in row for row in rows):
        lines["PyTorch DDP (gloo)"] = [row["ddp_images_per_second"] for row in rows]
    return lines


def draw(figure: Figure, results: list[dict[str, Any]]) -> None:
    panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for axes, result in zip(panels, results, strict=True):
        ranks = [row["ranks"] for row in result["rows"]]
        for (name, rates), marker in zip(curves(result["rows"]).items(), MARKERS, strict=False):
            axes.plot(ranks, rates, marker=marker, label=name)
        options = result["options"]
        axes.set_title(f"{options['model']}, batch {options['batch_size']}", fontsize="medium")
        axes.set(xlabel="ranks", xticks=ranks)
    panels[0].set(ylabel="images per second", ylim=(0, None))
    panels[-1].legend(loc="lower right")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/scaling.png"))
    options = parser.parse_args()
    results = [json.loads(path.read_text()) for path in options.files]
    width = 1 + 3.5 * len(results)
    write_picture(options.out, lambda figure: draw(figure, results), (width, 3.5))


if __name__ == "__main__":
    main()
