"""Picture files for a network: modes, sizes, and digits as those of MNIST were made."""

from __future__ import annotations

import importlib
import struct

import numpy as np
import pytest

from distnet.data import DataError
from distnet.data.formats.pictures import read_pictures
from distnet.data.handwriting import as_mnist
from distnet.models.scaling import COLOURS
from distnet.nn import Network, Standardize

Image = pytest.importorskip("PIL.Image", reason="Pillow is an extra")
RNG = np.random.Generator(np.random.Philox(key=11))


def saved(tmp_path, picture, name: str = "x.png", **settings):
    picture.save(tmp_path / name, **settings)
    return [tmp_path / name]


def test_colour_and_grey(tmp_path):
    pixels = RNG.integers(0, 256, (5, 4, 3), np.uint8)
    paths = saved(tmp_path, Image.fromarray(pixels))
    np.testing.assert_array_equal(read_pictures(paths, (3, 5, 4))[0], pixels.transpose(2, 0, 1))
    grey = read_pictures(paths, (1, 5, 4))[0, 0]
    expected = pixels @ [0.299, 0.587, 0.114]  # ITU-R BT.601, as Pillow documents
    assert abs(grey - expected).max() < 1


@pytest.mark.parametrize(
    ("mode", "pixels", "expected"),
    [
        ("1", [[True, False]], [255, 0]),
        ("LA", [[[10, 255], [10, 0]]], [10, 255]),  # transparent: white
        ("RGBA", [[[10, 10, 10, 255], [10, 10, 10, 0]]], [10, 255]),
        ("I;16", [[0, 257 * 99]], [0, 99]),
    ],
)
def test_other_modes(tmp_path, mode, pixels, expected):
    kind = {"1": bool, "I;16": np.uint16}.get(mode, np.uint8)
    paths = saved(tmp_path, Image.fromarray(np.array(pixels, kind)))
    assert read_pictures(paths, (1, 1, 2)).ravel().tolist() == expected


@pytest.mark.parametrize(
    ("value", "kind"), [(-1, np.int32), (65536, np.int32), (65535, np.float32)]
)
def test_numbers_that_are_no_grey_values(tmp_path, value, kind):
    Image.fromarray(np.array([[0, value]], kind)).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match=r"x\.tif: found grey values .*, expected 0 to "):
        read_pictures([tmp_path / "x.tif"], (1, 1, 2))


def test_palettes_and_orientation(tmp_path):
    picture = Image.fromarray(np.array([[0, 200]], np.uint8)).convert("P")
    assert read_pictures(saved(tmp_path, picture), (1, 1, 2)).ravel().tolist() == [0, 200]
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    paths = saved(tmp_path, Image.fromarray(np.array([[0, 200]], np.uint8)), exif=exif)
    assert read_pictures(paths, (1, 1, 2)).ravel().tolist() == [200, 0]


def test_other_sizes_are_scaled_and_cropped_about_the_centre(tmp_path):
    wide = np.zeros((10, 40), np.uint8)
    wide[:, 13:27] = 200  # the middle square and what its edge is blended with
    images = read_pictures(saved(tmp_path, Image.fromarray(wide)), (1, 5, 5))
    assert (images == 200).all()


def test_the_network_has_to_read_pictures(tmp_path):
    with pytest.raises(DataError, match=r"found input shape \(784,\), expected \(1 or 3, H, W\)"):
        read_pictures([], (784,))


def test_without_pillow(tmp_path, monkeypatch):
    def missing(name: str):
        raise ImportError(name)

    paths = saved(tmp_path, Image.fromarray(np.zeros((2, 2), np.uint8)))
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(DataError, match=r"pip install 'distnet-mpi\[images\]'"):
        read_pictures(paths, (1, 2, 2))


def test_a_picture_is_a_file_or_its_content_or_pixels(tmp_path):
    pixels = RNG.integers(0, 256, (5, 4, 3), np.uint8)
    (path,) = saved(tmp_path, Image.fromarray(pixels))
    for shape in ((3, 5, 4), (1, 5, 4), (3, 2, 2)):
        images = read_pictures([path, path.read_bytes(), pixels], shape)
        assert (images == images[0]).all()


def test_pixels_of_digits_need_no_pillow(monkeypatch):
    monkeypatch.setattr(importlib, "import_module", lambda name: pytest.fail(name))
    sheet = np.full((100, 100), 255, np.uint8)
    sheet[20:60, 10:14] = 0
    (image,) = read_pictures([sheet], (1, 28, 28), prepare="digits")
    np.testing.assert_array_equal(image[0], as_mnist(sheet))


def test_a_picture_that_was_sent_may_not_be_huge(tmp_path):
    (path,) = saved(tmp_path, Image.new("1", (6000, 6000)))
    with pytest.raises(DataError, match="found 6000 x 6000 pixels, expected at most 30,000,000"):
        read_pictures([path.read_bytes()], (1, 2, 2))
    assert read_pictures([path], (1, 2, 2)).shape == (1, 1, 2, 2), "one's own may"
    larger = path.read_bytes().replace(
        struct.pack(">II", 6000, 6000), struct.pack(">II", 1, 1 << 30)
    )
    with pytest.raises(DataError, match="the picture: cannot be read"):
        read_pictures([larger], (1, 2, 2))


def test_nothing_is_started_to_read_a_picture(tmp_path):
    """Pillow has Ghostscript run what is in a PostScript file."""
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    (tmp_path / "x.png").write_bytes(postscript)
    for picture in (tmp_path / "x.png", postscript):
        with pytest.raises(DataError, match="it is none of BMP, GIF, "):
            read_pictures([picture], (1, 2, 2))


@pytest.mark.parametrize("size", [(500, 333), (224, 224), (256, 300), (97, 100), (1000, 225)])
def test_pictures_as_for_imagenet(tmp_path, size):
    """The shorter side becomes 256 pixels; then the middle 224 x 224."""
    width, height = size
    picture = Image.fromarray(RNG.integers(0, 256, (height, width, 3), np.uint8))
    found = read_pictures(saved(tmp_path, picture), (3, 224, 224), prepare="imagenet")[0]
    short = min(size)
    scaled = picture.resize((256 * width // short, 256 * height // short), Image.BILINEAR)
    left, top = round((scaled.width - 224) / 2), round((scaled.height - 224) / 2)
    expected = np.asarray(scaled)[top : top + 224, left : left + 224]
    np.testing.assert_array_equal(found, expected.transpose(2, 0, 1))


def test_a_picture_that_is_too_long_is_one_line(tmp_path):
    """A file of some hundred bytes that would be scaled to 256 x 15,360,000 pixels."""
    picture = Image.new("L", (60_000, 1))
    with pytest.raises(DataError, match="found a picture of 60000 x 1 pixels, too long to be"):
        read_pictures(saved(tmp_path, picture), (3, 224, 224), prepare="imagenet")
    assert read_pictures(saved(tmp_path, picture), (3, 224, 224)).shape == (1, 3, 224, 224)


@pytest.mark.parametrize("size", [(500, 333), (224, 224), (231, 490)])
def test_pictures_are_prepared_as_torchvision_prepares_them(tmp_path, size):
    """With the mean and deviation that the network takes off: `Standardize`."""
    presets = pytest.importorskip(
        "torchvision.transforms._presets", reason="compares with torchvision, the extra `torch`"
    )
    picture = Image.fromarray(RNG.integers(0, 256, (size[1], size[0], 3), np.uint8))
    expected = presets.ImageClassification(crop_size=224)(picture).numpy()
    pixels = read_pictures(saved(tmp_path, picture), (3, 224, 224), prepare="imagenet")
    network = Network([Standardize(*COLOURS["imagenet"])], (3, 224, 224))
    np.testing.assert_allclose(network.predict(pixels)[0], expected, rtol=0, atol=2e-6)


GREY = np.add.outer(np.linspace(40, 90, 16), np.linspace(20, 80, 24)).round().astype(np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], 200 - GREY], axis=-1)
TURNED = Image.Exif()
TURNED[0x0112] = 6  # the camera was held upright: turn by 90 degrees

# What somebody may have made of the same picture: how it is written, and how near it comes to it.
SAME = {
    "jpeg.jpg": (lambda path: Image.fromarray(COLOUR).save(path, quality=95, subsampling=0), 4),
    "cmyk.jpg": (lambda path: Image.fromarray(COLOUR).convert("CMYK").save(path, quality=95), 12),
    "lab.tif": (lambda path: lab(COLOUR).save(path), 4),
    "of_16_bits.png": (lambda path: Image.fromarray(GREY.astype(np.uint16) * 257).save(path), 0),
    "of_16_bits_in_32.tif": (lambda path: Image.fromarray(GREY * np.int32(257)).save(path), 0),
    "bytes_in_32.tif": (lambda path: Image.fromarray(GREY.astype(np.int32)).save(path), 0),
    "floats_to_1.tif": (lambda path: Image.fromarray(GREY.astype(np.float32) / 255).save(path), 0),
    "floats.tif": (lambda path: Image.fromarray(GREY.astype(np.float32)).save(path), 0),
    "opaque.png": (lambda path: Image.fromarray(COLOUR).convert("RGBA").save(path), 0),
    "palette.png": (lambda path: Image.fromarray(GREY).convert("P").save(path), 0),
    "photograph.png": (
        lambda path: Image.fromarray(np.rot90(COLOUR).copy()).save(path, exif=TURNED),
        0,
    ),
    "moving.gif": (
        lambda path: Image.fromarray(GREY).save(
            path, save_all=True, append_images=[Image.fromarray(255 - GREY)]
        ),
        0,
    ),
}


def lab(pixels):
    """In CIE L*a*b*, which Pillow itself converts by littleCMS alone."""
    cms = importlib.import_module("PIL.ImageCms")
    spaces = cms.createProfile("sRGB"), cms.createProfile("LAB")
    return cms.profileToProfile(Image.fromarray(pixels), *spaces, outputMode="LAB")


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("channels", [1, 3])
def test_however_a_picture_is_written_it_is_the_same_picture(tmp_path, name, channels):
    write, tolerance = SAME[name]
    write(tmp_path / name)
    grey_only = name.startswith(("of_16", "bytes", "floats", "palette", "moving"))
    shape = (channels, *GREY.shape)
    found, expected = read_pictures([tmp_path / name, GREY if grey_only else COLOUR], shape)
    assert abs(found.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 300)])
def test_a_picture_of_any_size_is_made_to_fit(tmp_path, shape):
    paths = saved(tmp_path, Image.fromarray(np.full((*shape, 3), 77, np.uint8)))
    assert (read_pictures(paths, (3, 16, 24)) == 77).all()


def test_what_is_no_picture_is_said_in_one_line_that_names_it(tmp_path):
    (whole,) = saved(tmp_path, Image.fromarray(COLOUR), "whole.png")
    half = whole.read_bytes()[: whole.stat().st_size // 2]
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "nothing.png").touch()
    (tmp_path / "half.png").write_bytes(half)
    problems = {
        "missing.png": r"No such file or directory\)$",
        "folder.png": r"Is a directory\)$",
        "text.png": "it is none of BMP, GIF, ",
        "nothing.png": "it is none of BMP, GIF, ",
        "half.png": "truncated.*, fetch the file again$",
    }
    for name, problem in problems.items():
        with pytest.raises(DataError, match=rf"{name}: cannot be read \(.*{problem}") as caught:
            read_pictures([tmp_path / name], (1, 2, 2))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "found"), [(-1, "from -1 to "), (np.nan, "from nan"), (256, " to 256")]
)
def test_floats_that_are_no_grey_values_are_refused(tmp_path, value, found):
    pixels = GREY.astype(np.float32)
    pixels[0, 0] = value
    Image.fromarray(pixels).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match=f"x.tif: found grey values .*{found}.*expected 0 to 255"):
        read_pictures([tmp_path / "x.tif"], (1, 8, 8))
