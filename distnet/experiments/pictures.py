"""Pictures of experiments: PNG files by matplotlib, without a display and without pyplot.

Matplotlib is an extra (`plot`): it is imported only when a picture is drawn.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distnet.training.watching.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Draw = Callable[["Figure"], None]

# Okabe & Ito's palette, which colour-blind people can tell apart, without its yellow and black.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))
MARKERS = "osv^DX"
DPI = 100


def can_draw() -> bool:
    """Whether matplotlib is there."""
    return importlib.util.find_spec("matplotlib") is not None


def write_picture(path: Path, draw: Draw, size: tuple[float, float]) -> None:
    """Writes a PNG or JPEG file: `draw` fills an empty figure of `size` inches, 100 dots each."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    with rc_context(_style()):
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        draw(figure)
        canvas.draw()
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    if path.suffix.lower() == ".png":
        # A palette makes the file a third as large, which matters for those in the repository.
        pixels = pixels.quantize(256, dither=Image.Dither.NONE)
    pixels.save(path, optimize=True)


def draw_losses(figure: Figure, losses: Mapping[str, Sequence[float]], window: int = 100) -> None:
    """Curves of the loss over updates, each the mean of the last `window` batches."""
    axes = figure.subplots()
    for name, values in losses.items():
        axes.plot(*moving_average(values, window), label=name)
    axes.set(xlabel="update", ylabel="cross-entropy loss (nats)", ylim=(0, None))
    axes.set_title(f"mean of the last {window} batches", fontsize="medium")
    axes.legend()


def draw_accuracies(figure: Figure, history: History) -> None:
    """A curve of accuracy over updates for each set that was evaluated."""
    axes = figure.subplots()
    for name, marker in zip(history.evaluations, MARKERS, strict=False):
        axes.plot(
            history.num_updates, history.accuracy(name), marker=marker, fillstyle="none", label=name
        )
    axes.set(xlabel="update", ylabel="accuracy (fraction of digits)", ylim=(0, 1))
    axes.legend(loc="lower right")


def moving_average(values: Sequence[float], window: int) -> tuple[Any, Any]:
    """The number of updates after which, and the mean of the last `window` values before it."""
    mean = np.convolve(values, np.full(window, 1 / window), mode="valid")
    return np.arange(window, len(values) + 1), mean


def _style() -> Any:
    """Matplotlib's settings for all pictures of the book."""
    from cycler import cycler

    return {
        "axes.grid": True,
        "axes.prop_cycle": cycler(color=COLORS) + cycler(linestyle=DASHES),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "font.size": 10,
        "grid.alpha": 0.3,
        "image.cmap": "gray_r",
        "legend.frameon": False,
    }
