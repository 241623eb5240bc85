"""Layers, losses and networks in NumPy: what single-process users import."""

from distnet.nn.activations import ReLU, Sigmoid, Tanh
from distnet.nn.branches import Branches, Residual
from distnet.nn.convolution import Conv2d
from distnet.nn.dropout import Dropout
from distnet.nn.layer import Layer
from distnet.nn.linear import Flatten, Linear
from distnet.nn.losses import SoftmaxCrossEntropy, log_softmax, softmax
from distnet.nn.network import Network
from distnet.nn.normalization import BatchNorm
from distnet.nn.pooling import MaxPool2d
from distnet.nn.random import Training
from distnet.nn.sequential import Sequential

__all__ = [
    "BatchNorm",
    "Branches",
    "Conv2d",
    "Dropout",
    "Flatten",
    "Layer",
    "Linear",
    "MaxPool2d",
    "Network",
    "ReLU",
    "Residual",
    "Sequential",
    "Sigmoid",
    "SoftmaxCrossEntropy",
    "Tanh",
    "Training",
    "log_softmax",
    "softmax",
]
