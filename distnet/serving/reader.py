"""What a network makes of one picture that somebody has sent: probabilities, answers of layers."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from distnet.base.arrays import Array
from distnet.base.errors import DataError
from distnet.base.images import checked_images, large_floats_hint
from distnet.data.formats.npy import MAGIC, parse_npy
from distnet.data.formats.pictures import read_pictures
from distnet.nn import Network, softmax
from distnet.reporting import looks
from distnet.reporting.html import data_url

Answer = dict[str, Any]


class Reader:
    """A classifier that is asked about one picture after another; threads take turns.

    prepare: how pictures are prepared, see `read_pictures`, which also says whom that suits.
    Raises DataError for a network that does not read pictures.
    """

    def __init__(self, network: Network, prepare: str) -> None:
        self.network, self.prepare = network, prepare
        read_pictures([], network.input_shape, prepare=prepare)  # refuses what is no picture's
        self._turn = threading.Lock()

    @property
    def reads_digits(self) -> bool:
        """Whether drawings are prepared as the digits of MNIST were."""
        return self.prepare == "digits"

    def image(self, body: bytes) -> Array:
        """What was sent as the network reads it, `(C, H, W)`; raises DataError.

        A picture file, or an array in NumPy's format `.npy`: an image of the network's own shape,
        which is taken as it is, or the bytes of a picture, grey `(H, W)` or in colour `(H, W, 3)`.
        """
        shape = self.network.input_shape
        if not body.startswith(MAGIC):
            return read_pictures([body], shape, prepare=self.prepare)[0]
        array = parse_npy(body)
        is_picture = array.shape[2:] in ((), (3,)) and array.dtype == np.uint8 and array.size
        own = [shape, (*shape[1:], shape[0]), (1, *shape)]
        if shape[0] == 1:
            own.append(shape[1:])
        if array.ndim in (2, 3) and is_picture and array.shape not in own:
            return read_pictures([array], shape, prepare=self.prepare)[0]
        if array.size and array.shape not in own:
            raise DataError(f"the array: found shape {array.shape}, expected one image, {shape}")
        if array.shape != (1, *shape):
            array = array[None]
        return checked_images(array, shape, "the array")[0]

    def predict(self, body: bytes) -> Answer:
        """The class of what was sent and the probability of each: what JSON holds of it."""
        return self._prediction(self.image(body))

    def layers(self, body: bytes) -> Answer:
        """As `predict`, with what the network has seen and each layer has answered, as pictures.

        A picture is the URL of a PNG file that is part of the URL, and how many dots of a page one
        of its pixels is to take.
        """
        image = self.image(body)
        found = self._prediction(image)
        with self._turn:
            answers = list(looks.answers(self.network, image))
        seen = looks.as_pixels(image)
        found["input"] = {"picture": data_url(seen), "scale": looks.scale(seen, 140)}
        found["layers"] = [
            {
                "name": name,
                "shape": shape,
                "picture": data_url(drawn),
                "scale": looks.scale_of_answer(drawn),
            }
            for name, shape, drawn in answers
        ]
        return found

    def _prediction(self, image: Array) -> Answer:
        network, classes = self.network, self.network.classes
        with self._turn:
            logits = network.forward(network.as_input(image[None]))
            (probabilities,) = softmax(logits, network.arithmetic)
        found: Answer = {
            "class": classes[int(probabilities.argmax())],
            "probabilities": dict(zip(classes, map(float, probabilities), strict=True)),
        }
        if hint := large_floats_hint(image):
            found["warning"] = hint
        return found
