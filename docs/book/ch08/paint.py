"""Paints a picture of yours in the style of another (section 8.5.1).

    python docs/book/ch08/paint.py photo.jpg painting.jpg result.png

writes the middle of the photograph, 256 x 256 pixels unless --height and --width say otherwise.
On ranks, `mpirun -n 2 python ...`, they share out tiles of it, and the result is the same.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from painting import EYES, TILE, painted_by, write
from textures import middle_of

import distnet
from distnet.parallel import Communicator


def main(comm: Communicator) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photo", type=Path, help="the picture to be painted")
    parser.add_argument("style", type=Path, help="the picture whose style it gets")
    parser.add_argument("out", type=Path, help="the file to be written")
    parser.add_argument("--height", type=int, default=256, help="in pixels (default: 256)")
    parser.add_argument("--width", type=int, default=256, help="in pixels (default: 256)")
    parser.add_argument(
        "--style-weight", type=float, default=2.5, help="more: nearer to the style (default: 2.5)"
    )
    parser.add_argument(
        "--part",
        type=float,
        default=1.0,
        help="how much of the style's picture is looked at: less, and strokes grow (default: 1)",
    )
    parser.add_argument("--steps", type=int, default=200, help="(default: 200)")
    options = parser.parse_args()
    size = options.height, options.width
    eyes = [distnet.load(path) for path in EYES]
    (result,), history = painted_by(
        eyes,
        middle_of(options.photo, size)[None],
        [middle_of(options.style, size, options.part)],
        comm=comm,
        steps=options.steps,
        style_weight=options.style_weight,
        tile=TILE,
        progress=True,
    )
    if comm.rank == 0:
        write(options.out, result)
        last = history.steps[-1]
        print(f"content distance {last['content']:.3f}, style distance {last['style']:.4f}")
        print(f"wrote {options.out}")


if __name__ == "__main__":
    distnet.run(main)
