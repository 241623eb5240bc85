"""The networks of the book, each a short list of layers."""

from distnet.models.book import DeepConvNet, SimpleConvNet, TwoLayerNet

__all__ = ["DeepConvNet", "SimpleConvNet", "TwoLayerNet"]
