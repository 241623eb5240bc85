"""The networks of the book, each a short list of layers."""

from distnet.models.book import DeepConvNet, SimpleConvNet, ThreeLayerNet, TwoLayerNet

__all__ = ["DeepConvNet", "SimpleConvNet", "ThreeLayerNet", "TwoLayerNet"]
