"""Which objectives have a name: those that a network alone is enough for."""

from __future__ import annotations

import inspect

import pytest

from distnet import objectives
from distnet.models import NIC
from distnet.nn import Conv2d, Linear, Network
from distnet.objectives import OBJECTIVES, Objective

PUBLIC = [getattr(objectives, name) for name in objectives.__all__]
CLASSES = [each for each in PUBLIC if inspect.isclass(each) and each is not Objective]


@pytest.mark.parametrize("cls", CLASSES)
def test_what_is_made_of_a_network_alone_has_a_name(cls):
    parameters = inspect.signature(cls).parameters.values()
    needed = [each.annotation for each in parameters if each.default is each.empty]
    assert (cls in OBJECTIVES.values()) == (needed == ["Network"])


def network_for(name: str) -> Network:
    """One that ends as the objective needs it."""
    if name == "captioning":
        return NIC((1, 8, 8), 6, 5, filters=(2, 3, 4))
    last = Conv2d(3, 1) if name == "segmentation" else Linear(3)
    return Network([last], (1, 4, 4))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_network_is_enough_for_what_has_a_name(name):
    network = network_for(name)
    assert OBJECTIVES[name](network).parameters is network.parameters
