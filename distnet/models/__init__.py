"""The networks of the book, each a short list of layers, and MODELS, all networks by name.

A network is added by its file and a line here; see `Maker`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from distnet.models.book import DeepConvNet, SimpleConvNet, ThreeLayerNet, TwoLayerNet
from distnet.nn import Network

__all__ = ["MODELS", "DeepConvNet", "Maker", "SimpleConvNet", "ThreeLayerNet", "TwoLayerNet"]

# maker(input_shape, num_classes, *, seed, dtype) -> Network; further keyword-only parameters that
# are annotated as `Annotated[type, Option(...)]` are options of the training command.
Maker = Callable[..., Network]

MODELS: dict[str, Maker] = {
    # The book drops half; with shifted images less is better.
    "deep_convnet": partial(DeepConvNet, dropout=0.3),
    "simple_convnet": SimpleConvNet,
    "two_layer": TwoLayerNet,
    "three_layer": ThreeLayerNet,
}
