"""Paints a picture of yours in the style of another (section 8.5.1).

    python docs/book/ch08/paint.py photo.jpg painting.jpg result.png

writes the middle of the photograph, 256 x 256 pixels unless --height and --width say otherwise.
On ranks, `mpirun -n 2 python ...`, they share out tiles of it, and the result is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from painting import EYES, TILE, painted_by, write
from textures import middle_of

import distnet
from distnet.base.options import argument, option
from distnet.experiments import parse
from distnet.experiments.applying import writable
from distnet.parallel import Communicator, together


@dataclass(frozen=True)
class PaintOptions:
    """Paints a picture in the style of another; ranks share out tiles of it."""

    photo: str = argument("the picture to be painted", "PHOTO", path=True)
    style: str = argument("the picture whose style it gets", "STYLE", path=True)
    out: str = argument("the picture to be written, .png or .jpg", "OUT", path=True)
    height: int = option(
        256, "of the result, in pixels", group="size", metavar="N", limits={">=": 16, "<=": 4096}
    )
    width: int = option(
        256, "of the result, in pixels", group="size", metavar="N", limits={">=": 16, "<=": 4096}
    )
    steps: int = option(
        300, "how often its pixels are improved", group="size", metavar="N", limits={">=": 1}
    )
    style_weight: float = option(
        2.5, "more: nearer to the style", group="look", metavar="X", limits={">": 0}
    )
    part: float = option(
        1.0,
        "how much of the style's picture is looked at: less, and strokes grow",
        group="look",
        metavar="X",
        limits={">=": 0.05, "<=": 1},
    )
    arithmetic: str = option(
        "float32",
        "portable: the same pixels on any machine, and slower",
        group="arithmetic",
        choices=("float32", "portable"),
    )


def main(comm: Communicator) -> None:
    options = parse(PaintOptions, "python paint.py", comm)
    size = options.height, options.width
    out = together(comm, lambda: writable(options.out))
    content = together(comm, lambda: middle_of(Path(options.photo), size))
    style = together(comm, lambda: middle_of(Path(options.style), size, options.part))
    (result,), history = painted_by(
        [distnet.load(path).compute_in(options.arithmetic) for path in EYES],
        content[None],
        [style],
        comm=comm,
        steps=options.steps,
        style_weight=options.style_weight,
        tile=TILE,
        progress=True,
    )
    if comm.rank == 0:
        write(out, result)
        last = history.steps[-1]
        print(f"content distance {last['content']:.3f}, style distance {last['style']:.4f}")
        print(f"wrote {out}, from pixels with params_sha256 {history.params_sha256}")


if __name__ == "__main__":
    distnet.run(main)
