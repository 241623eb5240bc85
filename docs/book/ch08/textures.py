"""Pictures of scikit-image, and a network that learns to tell them apart by patches (8.5.1).

Only pictures that lie in scikit-image's wheel are used, so nothing is ever downloaded. All may be
used freely: CC0, or in the public domain, or without known restrictions, as `skimage.data` says.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from distnet.base.arrays import Array
from distnet.base.errors import DataError
from distnet.base.keys import Purpose, stream
from distnet.data import Samples
from distnet.data.formats.pictures import header, read_pictures
from distnet.nn import AvgPool2d, Conv2d, GlobalAvgPool2d, Linear, Network, ReLU, Standardize

FILES = {
    "astronaut": "astronaut.png",
    "brick": "brick.png",
    "camera": "camera.png",
    "cell": "cell.png",
    "chelsea": "chelsea.png",
    "clock": "clock_motion.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "hubble_deep_field": "hubble_deep_field.jpg",
    "immunohistochemistry": "ihc.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
    "text": "text.png",
}
PATCH = 32  # pixels

# What style transfer compares in a `texture_network`.
TAPS = {
    "style_taps": ("relu1", "relu2", "relu3", "relu4", "relu5", "relu6"),
    "content_tap": "relu4",
}


def file_of(name: str) -> Path:
    """Where a picture of `skimage.data` lies."""
    found = find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        raise DataError(
            "found no scikit-image, whose pictures are used; pip install 'distnet-mpi[photographs]'"
        )
    return Path(found.submodule_search_locations[0]) / "data" / FILES[name]


def photograph(name: str, size: tuple[int, int], part: float = 1.0) -> Array:
    """The middle of a picture of `skimage.data`, scaled: bytes `(3, H, W)`, see `middle_of`."""
    return middle_of(file_of(name), size, part)


def middle_of(path: Path, size: tuple[int, int], part: float = 1.0) -> Array:
    """The middle of a picture file, scaled to `size` (H, W): bytes `(3, H, W)`.

    part: how much of the height and width that fit is taken.
    """
    h, w = size
    whole_h, whole_w = round(h / part), round(w / part)
    (picture,) = read_pictures([path], (3, whole_h, whole_w))
    y, x = (whole_h - h) // 2, (whole_w - w) // 2
    return picture[:, y : y + h, x : x + w]


def patches(number: int, seed: int, *, for_test: bool = False) -> Samples:
    """Patches `(N, 3, 32, 32)` of all pictures in turn, and of which one each is.

    From the left three quarters of a picture or, for the test, from the right one; half of them
    from the picture at half of its size, mirrored or not, with more or less contrast and light.
    """
    scales = [_halved(file_of(name)) for name in FILES]
    labels = np.arange(number) % len(FILES)
    images = np.empty((number, 3, PATCH, PATCH), np.uint8)
    for i, label in enumerate(labels):
        rng = np.random.Generator(stream(seed, Purpose.SCENES, i, int(for_test)))
        picture = scales[label][rng.integers(2)]
        _, h, w = picture.shape
        border = 3 * w // 4
        low, high = (border, w - PATCH + 1) if for_test else (0, border - PATCH + 1)
        y, x = rng.integers(h - PATCH + 1), rng.integers(low, high)
        patch = picture[:, y : y + PATCH, x : x + PATCH] / 255
        patch = patch[:, :, ::-1] if rng.random() < 0.5 else patch
        patch = 0.5 + (patch - 0.5) * rng.uniform(0.8, 1.2) + rng.normal(0, 0.05)
        images[i] = np.round(255 * np.clip(patch, 0, 1))
    return Samples(images, labels)


def texture_network(seed: int) -> Network:
    """From patches to logits of the 15 pictures: 72,831 parameters.

    Every layer sees but a small part of a picture and the mean over all pixels decides, so that it
    has to learn what pictures are made of, not where things are. Without biases all features grow
    in proportion to the contrast.
    """
    layers = [Standardize((0.5, 0.5, 0.5), (1.0, 1.0, 1.0))]
    for filters in (16, 32, 64):
        pool = [AvgPool2d(2)] if filters > 16 else []
        first, second = (Conv2d(filters, 3, pad=1, bias=False) for _ in range(2))
        layers += [*pool, first, ReLU(), second, ReLU()]
    layers += [GlobalAvgPool2d(), Linear(len(FILES))]
    network = Network(layers, (3, PATCH, PATCH), seed=seed)
    network.classes = tuple(FILES)
    return network


def _halved(path: Path) -> tuple[Array, Array]:
    """A picture `(3, H, W)`, and the means of its blocks of 2 x 2 pixels, both as bytes."""
    (w, h), _ = header(path)
    (whole,) = read_pictures([path], (3, h, w))
    even = whole[:, : h // 2 * 2, : w // 2 * 2]
    means = even.reshape(3, h // 2, 2, w // 2, 2).mean(axis=(2, 4))
    return whole, np.round(means).astype(np.uint8)
