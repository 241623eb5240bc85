"""The winners of ImageNet's competition: how wrong, how deep, how large (book section 8.2.1).

The errors are those that were published (Russakovsky et al. 2015, table 7, arXiv:1409.0575; He et
al. 2015, table 5, arXiv:1512.03385). Depths and sizes are counted in distnet's own definitions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distnet.experiments import Lab, Numbers, Required, exactly, main
from distnet.models import MODELS
from distnet.nn import Branches, Conv2d, Layer, Linear, Residual, Sequential

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Year, name, per cent of the test pictures whose class was not among the five best guesses.
WINNERS = (
    (2010, "NEC", 28.2),
    (2011, "XRCE", 25.8),
    (2012, "AlexNet", 16.4),
    (2013, "ZF Net", 11.7),
    (2014, "VGG", 7.3),
    (2014, "GoogLeNet", 6.7),
    (2015, "ResNet", 3.57),
)
NETWORKS = {"AlexNet": "alexnet", "VGG": "vgg19", "GoogLeNet": "googlenet", "ResNet": "resnet152"}
REQUIRED = [
    Required("8.2", "layers with weights", "depths", exactly([8, 19, 22, 152])),
    Required(
        "8.2",
        "parameters, as in torchvision",
        "parameters",
        exactly([61_100_840, 143_667_240, 6_624_904, 60_192_808]),
    ),
]


def run(lab: Lab) -> Numbers:
    networks = [MODELS[name]((3, 224, 224), 1000, seed=None) for name in NETWORKS.values()]
    depths = [depth(network.body.layers) for network in networks]
    lab.picture(
        "history",
        lambda figure: draw_errors(figure, dict(zip(NETWORKS, depths, strict=True))),
        (7, 4),
    )
    return {
        "depths": depths,
        "parameters": [network.parameters.size for network in networks],
        "multiply_adds": [network.multiply_adds for network in networks],
    }


def depth(layers: list[Layer]) -> int:
    """How many layers with weights lie on the longest way through a network."""
    return sum(map(_depth, layers))


def _depth(layer: Layer) -> int:
    if isinstance(layer, Residual | Branches):
        return max(depth(path.layers) for path in layer.paths)
    if isinstance(layer, Sequential):
        return depth(layer.layers)
    return int(isinstance(layer, Conv2d | Linear))


def draw_errors(figure: Figure, depths: dict[str, int]) -> None:
    axes = figure.subplots()
    labels = [f"{name}\n{year}" for year, name, _ in WINNERS]
    errors = [error for _, _, error in WINNERS]
    deep = [name in depths or name == "ZF Net" for _, name, _ in WINNERS]
    bars = axes.bar(labels, errors, color=["tab:blue" if each else "silver" for each in deep])
    layers = depths | {"ZF Net": 8}
    texts = [f"{error:g}" for error in errors]
    for i, (_, name, _) in enumerate(WINNERS):
        texts[i] += f"\n{layers[name]} layers" if name in layers else "\nshallow"
    axes.bar_label(bars, texts, padding=2)
    axes.set(ylabel="top-5 error (% of the test pictures)", ylim=(0, 33))


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
