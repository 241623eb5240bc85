"""Finds the digits in a picture of yours with a trained R-CNN or Faster R-CNN.

    python docs/book/ch08/detect_picture.py runs/book/faster_rcnn note.jpg found.png

The picture, dark digits on light paper or the other way round, is scaled to 64 x 84 pixels: digits
should be 12 to 31 pixels high then, about a fifth to a half of its height.
"""

from __future__ import annotations

from pathlib import Path

from detecting import load

from distnet.experiments.applying import PictureOptions, apply, digits
from distnet.experiments.pictures import write_picture
from distnet.experiments.vision import draw_boxes


def use(options: PictureOptions) -> None:
    detector = load(Path(options.model))
    image = digits(options.picture, detector.input_shape)
    (found,), _ = detector.detect(image[None])
    names = [f"{k} {s:.2f}" for k, s in zip(found.labels, found.scores, strict=True)]
    for name, box in zip(names, found.boxes, strict=True):
        print(f"{name} at " + ", ".join(f"{corner:.0f}" for corner in box))

    def draw(figure) -> None:
        axes = figure.subplots()
        axes.imshow(image[0], cmap="gray")
        draw_boxes(axes, found.boxes, names)
        axes.set_axis_off()

    write_picture(Path(options.out), draw, (6.3, 4.8))
    print(f"wrote {options.out}" if names else f"found nothing; wrote {options.out}")


if __name__ == "__main__":
    apply(__file__, use)
