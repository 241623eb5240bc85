"""The published networks as formulas on their states: im2col-free NumPy, by torchvision's names.

Written from torchvision's definitions and not from distnet's, so that a layer under a wrong name or
in a wrong place gives other numbers. Images are `(N, C, H, W)`, states are dicts of arrays.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


class State(dict):
    """Arrays by name; `used` are those that were read."""

    def __init__(self, arrays):
        super().__init__(arrays)
        self.used = set()

    def __getitem__(self, name):
        self.used.add(name)
        return super().__getitem__(name)


def relu(x):
    return np.maximum(x, 0)


def windows(x, kernel, stride, pad, fill=0.0):
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), constant_values=fill)
    return sliding_window_view(x, (kernel, kernel), axis=(2, 3))[:, :, ::stride, ::stride]


def conv(s, name, x, stride=1, pad=0):
    weight = s[f"{name}.weight"]
    y = np.einsum("nchwij,fcij->nfhw", windows(x, weight.shape[2], stride, pad), weight)
    return y + s[f"{name}.bias"][:, None, None] if f"{name}.bias" in s else y


def norm(s, name, x, eps=1e-5):
    mean, var, gamma, beta = (
        s[f"{name}.{part}"][:, None, None]
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / np.sqrt(var + eps) * gamma + beta


def linear(s, name, x):
    return x.reshape(len(x), -1) @ s[f"{name}.weight"].T + s[f"{name}.bias"]


def max_pool(x, kernel, stride, pad=0, ceil=False):
    if ceil:  # a window may stick out at the end
        more = [-(size + 2 * pad - kernel) % stride for size in x.shape[2:]]
        x = np.pad(x, ((0, 0), (0, 0), (0, more[0]), (0, more[1])), constant_values=-np.inf)
    return windows(x, kernel, stride, pad, -np.inf).max(axis=(4, 5))


def lenet(s, x):
    x = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2))) if x.shape[2] < 32 else x
    for name in ("conv1", "conv2"):
        x = windows(np.tanh(conv(s, name, x)), 2, 2, 0).mean(axis=(4, 5))
    x = np.tanh(linear(s, "fc1", x))
    return linear(s, "fc3", np.tanh(linear(s, "fc2", x)))


def alexnet(s, x):
    x = max_pool(relu(conv(s, "features.0", x, stride=4, pad=2)), 3, 2)
    x = max_pool(relu(conv(s, "features.3", x, pad=2)), 3, 2)
    for place in (6, 8, 10):
        x = relu(conv(s, f"features.{place}", x, pad=1))
    x = max_pool(x, 3, 2)
    x = relu(linear(s, "classifier.1", x))
    return linear(s, "classifier.6", relu(linear(s, "classifier.4", x)))


def vgg11(s, x, batchnorm=False):
    place = 0
    for layer in (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"):
        if layer == "M":
            x, place = max_pool(x, 2, 2), place + 1
        else:
            x = conv(s, f"features.{place}", x, pad=1)
            x = relu(norm(s, f"features.{place + 1}", x) if batchnorm else x)
            place += 3 if batchnorm else 2
    for place in (0, 3):
        x = relu(linear(s, f"classifier.{place}", x))
    return linear(s, "classifier.6", x)


def vgg11_bn(s, x):
    return vgg11(s, x, batchnorm=True)


def googlenet(s, x):
    def unit(name, x, **where):
        return relu(norm(s, f"{name}.bn", conv(s, f"{name}.conv", x, **where), eps=1e-3))

    def inception(name, x):
        name = f"inception{name}.branch"
        return np.concatenate(
            [
                unit(f"{name}1", x),
                unit(f"{name}2.1", unit(f"{name}2.0", x), pad=1),
                unit(f"{name}3.1", unit(f"{name}3.0", x), pad=1),
                unit(f"{name}4.1", max_pool(x, 3, 1, pad=1)),
            ],
            axis=1,
        )

    x = max_pool(unit("conv1", x, stride=2, pad=3), 3, 2, ceil=True)
    x = max_pool(unit("conv3", unit("conv2", x), pad=1), 3, 2, ceil=True)
    for name in ("3a", "3b"):
        x = inception(name, x)
    x = max_pool(x, 3, 2, ceil=True)
    for name in ("4a", "4b", "4c", "4d", "4e"):
        x = inception(name, x)
    x = max_pool(x, 2, 2, ceil=True)
    for name in ("5a", "5b"):
        x = inception(name, x)
    return linear(s, "fc", x.mean(axis=(2, 3)))


def resnet(s, x, blocks, bottleneck=False):
    x = relu(norm(s, "bn1", conv(s, "conv1", x, stride=2, pad=3)))
    x = max_pool(x, 3, 2, pad=1)
    for stage, number in enumerate(blocks, 1):
        for i in range(number):
            name, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            steps = [(1, stride if not bottleneck else 1), (2, stride if bottleneck else 1)]
            y = x
            for k, step in steps + ([(3, 1)] if bottleneck else []):
                pad = 1 if not bottleneck or k == 2 else 0
                y = norm(s, f"{name}.bn{k}", conv(s, f"{name}.conv{k}", y, stride=step, pad=pad))
                y = relu(y) if (k, bottleneck) not in ((2, False), (3, True)) else y
            if f"{name}.downsample.0.weight" in s:
                x = conv(s, f"{name}.downsample.0", x, stride=stride)
                x = norm(s, f"{name}.downsample.1", x)
            x = relu(y + x)
    return linear(s, "fc", x.mean(axis=(2, 3)))


def resnet18(s, x):
    return resnet(s, x, (2, 2, 2, 2))


def resnet50(s, x):
    return resnet(s, x, (3, 4, 6, 3), bottleneck=True)
