"""The laboratory of the book: what its experiments share. See `lab.py`."""

from distnet.experiments.frechet import frechet_distance
from distnet.experiments.lab import (
    DeviceLabOptions,
    Lab,
    LabOptions,
    Numbers,
    Run,
    load,
    main,
    parse,
    perform,
    prepare,
    show,
)
from distnet.experiments.pictures import (
    COLORS,
    MARKERS,
    draw_accuracies,
    draw_losses,
    moving_average,
)
from distnet.experiments.requirements import (
    Bound,
    Required,
    Verdict,
    at_least,
    at_most,
    between,
    exactly,
    near,
)

__all__ = [
    "COLORS",
    "MARKERS",
    "Bound",
    "DeviceLabOptions",
    "Lab",
    "LabOptions",
    "Numbers",
    "Required",
    "Run",
    "Verdict",
    "at_least",
    "at_most",
    "between",
    "draw_accuracies",
    "draw_losses",
    "exactly",
    "frechet_distance",
    "load",
    "main",
    "moving_average",
    "near",
    "parse",
    "perform",
    "prepare",
    "show",
]
