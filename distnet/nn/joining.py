"""Several networks whose parameters lie in one vector, so that they are trained as one."""

from __future__ import annotations

import numpy as np

from distnet.base.arithmetic import common_arithmetic
from distnet.nn.network import Network
from distnet.nn.parameters import VECTORS, Parameters


def joined(**networks: Network) -> Parameters:
    """The parameters of several networks in one vector, in the order given, under their names.

    For an objective that trains them together. Its backward comes to them in reverse order, and
    adds what `starts` says of a network to the offsets that the network tells `ready`.
    """
    bodies = {name: network.body for name, network in networks.items()}
    dtype = _dtype(networks)
    arithmetic = common_arithmetic("joined", [network.arithmetic for network in networks.values()])
    whole = Parameters(bodies, dtype, arithmetic)
    starts = [0] * len(VECTORS)
    for own in (network.parameters for network in networks.values()):
        stops = [a + getattr(own, name).size for a, name in zip(starts, VECTORS, strict=True)]
        places = zip(VECTORS, starts, stops, strict=True)
        own.move_to(**{name: getattr(whole, name)[start:stop] for name, start, stop in places})
        own.are_joined, starts = True, stops
    return whole


def _dtype(networks: dict[str, Network]) -> np.dtype:
    dtypes = {network.parameters.dtype for network in networks.values()}
    if len(dtypes) != 1:
        found = ", ".join(sorted(map(str, dtypes))) or "no network"
        raise ValueError(f"joined: found {found}, expected networks of one dtype")
    return dtypes.pop()
