"""Draws scenes of every kind with what is known of them, and tells how long one takes.

python docs/pictures/scenes.py --out docs/pictures/scenes.png
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distnet.base.arrays import Array
from distnet.data import load_dataset
from distnet.data.scenes import DigitScenes, RoadScenes, Scenes, caption, caption_scenes
from distnet.experiments.pictures import write_picture
from distnet.experiments.vision import DIGIT_COLOURS, ROAD_COLOURS, draw_boxes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_SCENES = 4
NUM_TIMED = 500


def draw(figure: Figure, scenes: dict[str, Scenes]) -> None:
    grid = figure.subplots(5, NUM_SCENES, height_ratios=[64, 64, 70, 64, 64])
    for axes in grid.flat:
        axes.set_axis_off()
    for column in range(NUM_SCENES):
        above, below, captioned, road, road_mask = grid[:, column]
        scene = scenes["digits"][column]
        show(above, scene.image)
        draw_boxes(above, scene.boxes, map(str, scene.labels))
        below.imshow(DIGIT_COLOURS[scene.mask])
        scene = scenes["captions"][column]
        show(captioned, scene.image)
        captioned.set_title(caption(scene), fontsize="x-small")
        scene = scenes["roads"][column]
        show(road, scene.image)
        road_mask.imshow(ROAD_COLOURS[scene.mask])


def show(axes: Any, image: Array) -> None:
    """A picture (C, H, W) of bytes."""
    axes.imshow(image[0] if len(image) == 1 else image.transpose(1, 2, 0), cmap="gray")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/scenes.png"))
    options = parser.parse_args()
    digits = load_dataset("mnist").train
    scenes: dict[str, Scenes] = {
        "digits": DigitScenes(digits),
        "captions": caption_scenes(digits),
        "roads": RoadScenes(),
    }
    for name, kind in scenes.items():
        began = time.process_time()
        for number in range(NUM_TIMED):
            kind[number]
        each = (time.process_time() - began) / NUM_TIMED
        print(f"{name}: {1e3 * each:.2f} ms a scene")
    write_picture(options.out, lambda figure: draw(figure, scenes), (8, 7.6))


if __name__ == "__main__":
    main()
