"""What style transfer is done with: the recipe, and files of pictures (section 8.5.1)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from textures import TAPS

from distnet.base.arithmetic import portable
from distnet.base.arrays import Array
from distnet.nn import Network
from distnet.objectives import StyleTransfer
from distnet.objectives.likeness import as_floats
from distnet.parallel import Communicator
from distnet.training.fit import fit
from distnet.training.watching.history import History

# Two networks that texture_networks.py has trained: what one can be deceived with, the other sees.
EYES = [
    Path(__file__).with_name(f"{name}.safetensors") for name in ("texture_eye", "texture_eye_2")
]
MARGIN = 8  # pixels around a picture, its mirror image: features go astray at a border
TILE = 136  # pixels: four cover 256 x 256 and the margins
GAP = 6  # white pixels between pictures


def painted_by(
    eyes: Sequence[Network],
    contents: Array,
    styles: Sequence[Array],
    *,
    comm: Communicator,
    steps: int = 300,
    style_weight: float | Sequence[float] = 2.5,
    smoothness: float = 10.0,
    tile: int | None = None,
    progress: bool = False,
) -> tuple[Array, History]:
    """The contents `(P, 3, H, W)` in those styles, as the eyes see them: `(P, 3, H, W)`, 0 to 1.

    It is done in the arithmetic of the eyes. style_weight: one for all or one for each.
    """
    around = [(0, 0), (0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)]
    objective = StyleTransfer(
        eyes,
        np.pad(contents, around, mode="reflect"),
        styles,
        **TAPS,
        style_weight=style_weight,
        smoothness=smoothness,
        tile=tile,
        mirrored=True,
    )
    history = fit(
        objective,
        *objective.tiles,
        steps=steps,
        optimizer="adam",
        lr=partial(falling, steps=steps),
        batch_size=len(objective.tiles.inputs),
        micro_batch_size=1,
        progress=progress,
        comm=comm,
    )
    return objective.pictures[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN], history


@portable
def falling(step: int, steps: int) -> float:
    """The learning rate: a straight line down to 0."""
    return 0.4 * (1 - step / steps)


def beside(rows: Sequence[Sequence[Array]]) -> Array:
    """Pictures `(3, H, W)` of one size as one, `(3, H', W')` from 0 to 1: rows, with gaps."""
    lines = [_joined([as_floats(picture) for picture in row], axis=2) for row in rows]
    return _joined(lines, axis=1)


def write(path: Path, picture: Array, enlarged: int = 1) -> None:
    """Writes a picture `(3, H, W)` from 0 to 1, as a file of the kind that its name says."""
    from PIL import Image

    image = Image.fromarray(np.round(255 * picture).astype(np.uint8).transpose(1, 2, 0))
    size = enlarged * image.width, enlarged * image.height
    path.parent.mkdir(parents=True, exist_ok=True)
    image.resize(size, Image.Resampling.LANCZOS).save(path, quality=80)


def _joined(pictures: Sequence[Array], axis: int) -> Array:
    pads = [(0, 0)] * 3
    pads[axis] = 0, GAP
    padded = [np.pad(each, pads, constant_values=1) for each in pictures[:-1]]
    return np.concatenate([*padded, pictures[-1]], axis=axis)
