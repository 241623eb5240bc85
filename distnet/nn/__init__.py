"""Layers, losses and networks in NumPy: what single-process users import."""

from distnet.base.keys import MicroBatch
from distnet.nn.branches import Branches, Residual
from distnet.nn.conv.average_pooling import AvgPool2d, GlobalAvgPool2d
from distnet.nn.conv.conv2d import Conv2d
from distnet.nn.conv.conv_transpose2d import ConvTranspose2d
from distnet.nn.conv.pooling import MaxPool2d
from distnet.nn.conv.unpooling import MaxUnpool2d
from distnet.nn.conv.upsample import Resize, Upsample
from distnet.nn.ensemble import Ensemble
from distnet.nn.folding import fold_batchnorm
from distnet.nn.joining import joined
from distnet.nn.layer import Layer
from distnet.nn.layers.activations import LeakyReLU, ReLU, Sigmoid, Tanh
from distnet.nn.layers.binary import BinaryConv2d, BinaryLinear, Sign
from distnet.nn.layers.captioning import CaptionDecoder
from distnet.nn.layers.dropout import Dropout
from distnet.nn.layers.embedding import Embedding, PositionEmbedding
from distnet.nn.layers.gram import GramMatrix
from distnet.nn.layers.linear import Flatten, Linear, Unflatten
from distnet.nn.layers.normalization import BatchNorm, LocalResponseNorm
from distnet.nn.layers.quantized import Quantize, Scale
from distnet.nn.layers.recurrent import LSTM
from distnet.nn.layers.standardize import Standardize
from distnet.nn.losses import PixelCrossEntropy, SoftmaxCrossEntropy, log_softmax, softmax
from distnet.nn.network import Network
from distnet.nn.quantization import quantize
from distnet.nn.sequential import Sequential

__all__ = [
    "LSTM",
    "AvgPool2d",
    "BatchNorm",
    "BinaryConv2d",
    "BinaryLinear",
    "Branches",
    "CaptionDecoder",
    "Conv2d",
    "ConvTranspose2d",
    "Dropout",
    "Embedding",
    "Ensemble",
    "Flatten",
    "GlobalAvgPool2d",
    "GramMatrix",
    "Layer",
    "LeakyReLU",
    "Linear",
    "LocalResponseNorm",
    "MaxPool2d",
    "MaxUnpool2d",
    "MicroBatch",
    "Network",
    "PixelCrossEntropy",
    "PositionEmbedding",
    "Quantize",
    "ReLU",
    "Residual",
    "Resize",
    "Scale",
    "Sequential",
    "Sigmoid",
    "Sign",
    "SoftmaxCrossEntropy",
    "Standardize",
    "Tanh",
    "Unflatten",
    "Upsample",
    "fold_batchnorm",
    "joined",
    "log_softmax",
    "quantize",
    "softmax",
]
