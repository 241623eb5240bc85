"""Scripts that apply what an experiment has trained to a picture of one's own.

Such a script has a function `use(options)` and ends with `apply(__file__, use)`. What cannot be
used, be it the network, the picture or the file to be written, is one line and exit code 2.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from distnet.base.arrays import Array, Shape
from distnet.base.command import one_line
from distnet.base.errors import DataError
from distnet.base.options import ConfigError, argument, parse_options
from distnet.data.formats.pictures import read_pictures
from distnet.data.handwriting import on_black
from distnet.nn.network import Network
from distnet.training.files.checkpoint import CheckpointError
from distnet.training.files.model_file import load

PICTURES = (".png", ".jpg", ".jpeg")  # how the name of a picture that is written may end


@dataclass(frozen=True)
class PictureOptions:
    """Applies what an experiment of the book has trained to a picture."""

    model: str = argument("what the experiment wrote into --out", "MODEL", path=True)
    picture: str = argument("a picture file: PNG, JPEG, ...", "PICTURE", path=True)
    out: str = argument("the picture to be written, .png or .jpg", "OUT", path=True)


def apply(script: str, use: Callable[[PictureOptions], None]) -> NoReturn:
    """The end of such a script: `use` with what the command line says; exits."""

    @one_line(DataError, CheckpointError, ConfigError, OSError)
    def command() -> int:
        options = parse_options(PictureOptions, sys.argv[1:], f"python {Path(script).name}")
        writable(options.out)
        use(options)
        return 0

    sys.exit(command())


def writable(path: str) -> Path:
    """The file of a picture to be written, whose folder is made; raises ConfigError."""
    out = Path(path)
    if out.suffix.lower() not in PICTURES or out.is_dir():
        raise ConfigError(f"{path}: cannot be written, expected a file {' or '.join(PICTURES)}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from None
    return out


def named(path: str, fits: Callable[[Network], bool], expected: str) -> Network:
    """The network in `path`, whose outputs have the names of classes.

    Raises CheckpointError if it is not `expected`, which is what `fits` looks for.
    """
    network = load(path)
    if not fits(network):
        found = f"found a network from {network.input_shape} to {network.output_shape}"
        raise CheckpointError(f"{path}: {found}, expected {expected}")
    if not network.classes:
        raise CheckpointError(f"{path}: found outputs without names, expected {expected}")
    return network


def picture(path: str, input_shape: Shape) -> Array:
    """The middle of a picture file as a network reads it: bytes `(C, H, W)`; raises DataError."""
    return read_pictures([Path(path)], input_shape)[0]


def digits(path: str, input_shape: Shape) -> Array:
    """Digits, dark or light, on paper, as scenes have them: light on black, `(1, H, W)`."""
    if input_shape[0] != 1:
        raise DataError(f"found a network that reads {input_shape}, expected grey pictures")
    return on_black(picture(path, input_shape)[0])[None]
