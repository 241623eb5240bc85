"""What is sent becomes an image of the network, and the answers are the network's."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest

from distnet.data import DataError, load_dataset
from distnet.data.handwriting import as_mnist
from distnet.nn import Conv2d, Linear, Network, ReLU, softmax
from distnet.serving.page import page
from distnet.serving.reader import Reader

RNG = np.random.Generator(np.random.Philox(key=5))


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def colours(shape: tuple[int, ...] = (3, 6, 8)) -> Reader:
    network = Network([Conv2d(4, 3), ReLU(), Linear(2)], shape)
    network.classes = ("no", "yes")
    return Reader(network, "plain")


def test_a_picture_of_a_digit(reader):
    image = load_dataset().test.inputs[0]
    found = reader.predict(npy(image))
    (expected,) = softmax(reader.network.predict(image[None]))
    assert list(found["probabilities"]) == list("0123456789")
    np.testing.assert_array_equal(list(found["probabilities"].values()), expected)
    assert found["class"] == "7" == reader.network.classes[expected.argmax()]
    json.dumps(found)


def test_drawings_are_prepared_and_images_are_not(reader):
    sheet = np.full((100, 120), 255, np.uint8)
    sheet[20:80, 50:58] = 0
    np.testing.assert_array_equal(reader.image(npy(sheet))[0], as_mnist(sheet))
    image = RNG.integers(0, 256, (28, 28), np.uint8)
    for shape in ((28, 28), (1, 28, 28), (28, 28, 1), (1, 1, 28, 28)):
        np.testing.assert_array_equal(reader.image(npy(image.reshape(shape)))[0], image)


def test_colours():
    reader, pixels = colours(), RNG.integers(0, 256, (6, 8, 3), np.uint8)
    for sent in (pixels, pixels.transpose(2, 0, 1), (pixels / 255).astype(np.float32)):
        image = reader.image(npy(sent))
        assert image.shape == (3, 6, 8)
    pytest.importorskip("PIL", reason="Pillow is an extra")
    large = np.kron(pixels, np.ones((5, 5, 1), np.uint8))
    assert reader.image(npy(large)).shape == (3, 6, 8)
    assert reader.image(npy(large[..., 0])).shape == (3, 6, 8), "what is grey is a colour, too"
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    np.testing.assert_array_equal(reader.image(npy(grey)), [grey] * 3, "of the right size as well")
    assert reader.predict(npy(large))["class"] in ("no", "yes")


def test_picture_files(reader):
    image = pytest.importorskip("PIL.Image", reason="Pillow is an extra")
    digit = load_dataset().test.inputs[0, 0]
    for kind in ("PNG", "JPEG", "BMP"):
        file = io.BytesIO()
        image.fromarray(255 - digit).resize((200, 200)).save(file, kind)
        assert reader.predict(file.getvalue())["class"] == "7"


def test_what_the_layers_answer(reader):
    image = pytest.importorskip("PIL.Image", reason="Pillow is an extra")
    digit = load_dataset().test.inputs[1]
    found = reader.layers(npy(digit))
    assert [layer["name"] for layer in found["layers"]] == ["conv1", "relu1", "linear1"]
    assert [layer["shape"] for layer in found["layers"]] == ["8 x 12 x 12", "8 x 12 x 12", "10"]
    pictures = [found["input"], *found["layers"]]
    drawn = []
    for each in pictures:
        kind, _, data = each["picture"].partition(",")
        assert kind == "data:image/png;base64"
        drawn.append(np.asarray(image.open(io.BytesIO(base64.b64decode(data)))))
    np.testing.assert_array_equal(drawn[0], digit[0])
    shown = drawn[-1][..., 0][drawn[-1][..., 1] > 0]
    assert str(shown.argmax()) == found["class"] == "2"
    assert {**found, **reader.predict(npy(digit))} == found


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "cannot be read"),
        (b"GIF89a", "cannot be read"),
        (npy(np.zeros((28, 28), np.uint8))[:500], "damaged"),
        (npy(np.zeros((300, 280), np.uint8)), "found an empty picture"),
        (npy(np.zeros((27, 29))), r"found shape \(27, 29\), expected one image, \(1, 28, 28\)"),
        (npy(np.zeros((2, 1, 28, 28), np.uint8)), r"found shape \(2, 1, 28, 28\)"),
        (npy(np.full((28, 28), np.nan)), "NaN"),
        (npy(np.zeros((28, 28), int)), "found int64"),
        (npy(np.full((28, 28), "text")), "found <U4"),
        (npy(np.zeros((0, 50), np.uint8)), "found an empty array"),
        (npy(np.zeros(7, np.uint8)), r"found shape \(7,\)"),
        (npy(np.array(5, np.uint8)), r"found shape \(\)"),
    ],
)
def test_what_is_no_picture(reader, body, message):
    with pytest.raises(DataError, match=message):
        reader.predict(body)


def test_floats_that_look_like_bytes_are_told(reader):
    assert "divide by 255" in reader.predict(npy(np.full((28, 28), 200.0)))["warning"]


def test_a_network_that_reads_no_pictures():
    network = Network([Linear(2)], (7,))
    network.classes = ("no", "yes")
    with pytest.raises(DataError, match=r"found input shape \(7,\)"):
        Reader(network, "plain")
    with pytest.raises(DataError, match=r"\(3, 6, 8\), expected \(1, 28, 28\) for digits"):
        Reader(colours().network, "digits")


def test_the_page_says_what_is_done_with_a_drawing(reader):
    of_digits, policy = page(reader, "<b>net</b>", "/layers")
    assert "Draw a digit" in of_digits and "&lt;b&gt;net&lt;/b&gt;" in of_digits
    assert "://" not in of_digits.replace('http-equiv="', "")
    assert policy.startswith("default-src 'none'; ")
    of_others, _ = page(colours(), "net", "/layers")
    assert "Draw something" in of_others and '"channels": 3' in of_others


def test_names_of_classes_cannot_end_the_script():
    reader = colours()
    reader.network.classes = ("</script><script>alert(1)", "b")
    html, _ = page(reader, "net", "/layers")
    assert html.count("</script>") == 2
