"""Says what is in a picture of yours, and where it looked for each word.

    python docs/book/ch08/caption_picture.py runs/book/nic.safetensors note.jpg said.png

The picture, one or two digits, dark on light paper or the other way round, is scaled to the size
that the network reads, 40 x 40 pixels: digits should be a third to a half of its height.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from captioning import draw_looks

import distnet
from distnet.base.arrays import Array
from distnet.experiments.pictures import write_picture
from distnet.models.nic import captions, decoder_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="file that an experiment of section 8.4.3 wrote")
    parser.add_argument("picture", type=Path, help="a picture file")
    parser.add_argument("out", type=Path, help="the PNG file to be written")
    options = parser.parse_args()
    network = distnet.load(options.model)
    image = read(options.picture, network.input_shape[1:])
    (words,) = captions(network, image[None, None])
    sentence = " ".join(network.classes[word] for word in words if word)
    print(f'"{sentence}"')
    looked_at = decoder_of(network).looked_at[0]
    said = [(network.classes[word], looked_at[place]) for place, word in enumerate(words) if word]

    def draw(figure) -> None:
        whole, rest = figure.subfigures(2, 1, height_ratios=(3, 1))
        axes = whole.subplots()
        axes.imshow(image, cmap="gray")
        axes.set_axis_off()
        axes.set_title(sentence)
        draw_looks(rest.subplots(1, max(1, len(said)), squeeze=False)[0], image, said)

    write_picture(options.out, draw, (6.4, 6.4))
    print(f"wrote {options.out}")


def read(path: Path, size: tuple[int, ...]) -> Array:
    """The picture as light ink on a dark ground, `(H, W)` bytes: its middle, scaled."""
    from PIL import Image, ImageOps

    height, width = size
    with Image.open(path) as image:
        grey = np.asarray(ImageOps.fit(image.convert("L"), (width, height)))
    if np.median(grey) > 127:
        grey = 255 - grey
    return np.maximum(grey.astype(int) - int(np.median(grey)), 0).astype(np.uint8)


if __name__ == "__main__":
    main()
