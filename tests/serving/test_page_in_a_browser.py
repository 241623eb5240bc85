"""The page in a real browser: digits are drawn with mouse and finger, and what it shows is read.

Needs the extra `browser`, and Chromium, which Debian and others package; skipped without them.
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from distnet.data import load_dataset
from distnet.serving.server import Server

api = pytest.importorskip(
    "playwright.sync_api", reason="a browser is driven by the extra `browser`"
)
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason=f"found none of {', '.join(NAMES)} on PATH"
)

# No sandbox: root may have none. The others keep it from looking for hosts of its maker.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
PATIENCE_MS = 120_000  # on a machine that others load
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
# Strokes on a sheet of 280 x 280 dots.
SEVEN = [[(70, 60), (200, 60), (120, 230)]]
ONE = [[(140, 50), (140, 235)]]
FOUR = [[(90, 50), (80, 150), (200, 150)], [(180, 70), (170, 240)]]

Point = tuple[float, float]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE_MS
        )
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any, server: Server) -> Iterator[Callable[..., Any]]:
    """Opens the page, `settings` as of Playwright's contexts; nothing may go wrong in it."""
    opened, complaints, asked = [], [], []

    def open_one(**settings: Any) -> Any:
        context = browser.new_context(**({"viewport": DESKTOP} | settings))
        context.set_default_timeout(PATIENCE_MS)
        opened.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        return page

    yield open_one
    for context in opened:
        context.close()
    assert complaints == []
    own = f"http://127.0.0.1:{server.server_port}/"
    assert all(url.startswith((own, "data:")) for url in asked), "nothing is loaded from elsewhere"


def on_sheet(page: Any, point: Point) -> Point:
    """A point of the sheet as one of the window."""
    box = page.locator("#sheet").bounding_box()
    return box["x"] + point[0] * box["width"] / 280, box["y"] + point[1] * box["height"] / 280


def draw(page: Any, strokes: list[list[Point]]) -> None:
    for first, *rest in strokes:
        page.mouse.move(*on_sheet(page, first))
        page.mouse.down()
        for point in rest:
            page.mouse.move(*on_sheet(page, point), steps=6)
        page.mouse.up()


def shows(page: Any, name: str, text: str) -> None:
    """Waits until the element says what begins with `text`, or nothing for ""."""
    expected = re.compile("^" + (re.escape(text) or "$"))
    api.expect(page.locator(f"#{name}")).to_have_text(expected, timeout=PATIENCE_MS)


def sees(page: Any, digit: str) -> None:
    """Waits for the answer to all that is drawn."""
    api.expect(page.locator("body")).to_have_attribute("aria-busy", "false", timeout=PATIENCE_MS)
    shows(page, "verdict", f"{digit}, ")


def shares(page: Any) -> dict[str, str]:
    names = page.locator("#bars .name").all_inner_texts()
    return dict(zip(names, page.locator("#bars .share").all_inner_texts(), strict=True))


@pytest.mark.parametrize(("digit", "strokes"), [("7", SEVEN), ("1", ONE), ("4", FOUR)])
def test_a_digit_drawn_with_the_mouse(open_page, digit, strokes):
    page = open_page()
    assert shares(page) == dict.fromkeys("0123456789", "")
    draw(page, strokes)
    sees(page, digit)
    found = shares(page)
    percent = {name: float(text.removesuffix("\xa0%")) for name, text in found.items()}
    assert list(found) == list("0123456789")
    assert sum(percent.values()) == pytest.approx(100, abs=0.6)
    assert max(percent, key=percent.__getitem__) == digit
    assert page.locator("#verdict").inner_text() == f"{digit}, {found[digit]}"
    width = page.locator("#bars .most span").evaluate("bar => bar.style.width")
    assert float(width.removesuffix("%")) == pytest.approx(percent[digit], abs=0.06)


def test_it_answers_while_something_is_drawn(open_page):
    page = open_page()
    page.mouse.move(*on_sheet(page, (140, 50)))
    page.mouse.down()
    api.expect(page.locator("#verdict")).not_to_be_empty(timeout=PATIENCE_MS)
    page.mouse.move(*on_sheet(page, (140, 235)), steps=6)
    sees(page, "1")
    page.mouse.up()


def test_what_the_network_sees_and_what_its_layers_answer(open_page):
    page = open_page()
    draw(page, SEVEN)
    sees(page, "7")
    assert page.locator("#layers .tile").all_inner_texts() == [
        "conv1\n8 x 12 x 12",
        "relu1\n8 x 12 x 12",
        "linear1\n10",
    ]
    page.evaluate("Promise.all([...document.images].map(image => image.decode()))")
    image = np.array(
        page.evaluate(
            """() => {
                const image = document.getElementById("seen");
                const context = document.createElement("canvas").getContext("2d");
                context.drawImage(image, 0, 0, 28, 28);
                return [...context.getImageData(0, 0, 28, 28).data].filter((_, at) => at % 4 === 0);
            }"""
        )
    ).reshape(28, 28)
    rows, columns = (np.nonzero(image.sum(axis=axis))[0] for axis in (1, 0))
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20, "the box of MNIST's digits"
    centre = [(image.sum(axis=1 - axis) * np.arange(28)).sum() / image.sum() for axis in (0, 1)]
    assert np.abs(np.array(centre) - 14).max() <= 0.5, "the centre of mass in the middle"


def test_undo_and_clear(open_page):
    page = open_page()
    draw(page, [*ONE, [(60, 60), (70, 230), (220, 230), (220, 60)]])
    page.locator("#undo").click()
    sees(page, "1")
    page.locator("#clear").click()
    shows(page, "verdict", "")
    assert page.locator("#layers .tile").count() == 0
    assert not page.locator("#seen").is_visible()
    assert shares(page) == dict.fromkeys("0123456789", "")


def test_a_finger_on_a_phone(open_page):
    page = open_page(viewport=PHONE, has_touch=True, is_mobile=True)
    finger = page.context.new_cdp_session(page)

    def touch(kind: str, *points: Point) -> None:
        places = [dict(zip("xy", on_sheet(page, point), strict=True)) for point in points]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    touch("touchStart", (140, 50))
    for y in range(60, 240, 10):
        touch("touchMove", (140, y))
    touch("touchEnd")
    sees(page, "1")
    assert page.evaluate("scrollY") == 0, "the page does not move under a finger that draws"
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["laptop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_wide_and_narrow(open_page, viewport, scheme):
    page = open_page(viewport=viewport, color_scheme=scheme)
    draw(page, FOUR)
    sees(page, "4")
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    paper, ink = brightness(page, "backgroundColor"), brightness(page, "color")
    assert (paper > ink) == (scheme == "light") and abs(paper - ink) > 180
    corner = page.evaluate("pen.getImageData(0, 0, 1, 1).data[0]")
    assert (corner > 128) == (scheme == "light")


def test_the_colours_of_the_page_do_not_change_what_is_asked(open_page):
    """A network of other things than digits would take light ink for something else."""
    asked = []
    for scheme in "light", "dark":
        page = open_page(color_scheme=scheme)
        draw(page, FOUR)
        sees(page, "4")
        asked.append(page.evaluate("content().arrayBuffer().then(b => [...new Uint8Array(b)])"))
    assert asked[0] == asked[1]


def brightness(page: Any, name: str) -> float:
    """Of a colour of the page, 0 to 255."""
    text = page.evaluate(f"getComputedStyle(document.body).{name}")
    return float(np.mean([float(each) for each in text.strip("rgba()").split(",")[:3]]))


def test_a_picture_that_is_chosen(open_page, tmp_path):
    image = pytest.importorskip("PIL.Image", reason="Pillow is an extra")
    digit = load_dataset().test.inputs[1, 0]  # a two
    sheet = np.full((900, 1200), 230, np.uint8)
    sheet[200:760, 400:960] -= np.kron(digit // 2, np.ones((20, 20), np.uint8))
    file = io.BytesIO()
    image.fromarray(sheet).save(file, "JPEG")
    page = open_page()
    choose = page.locator("#file")
    choose.set_input_files({"name": "two.jpg", "mimeType": "image/jpeg", "buffer": file.getvalue()})
    sees(page, "2")
    choose.set_input_files({"name": "x.jpg", "mimeType": "image/jpeg", "buffer": b"no picture"})
    shows(page, "trouble", "x.jpg: no picture")


def test_a_picture_of_the_networks_own_size_is_prepared_as_well(open_page, reader):
    image = pytest.importorskip("PIL.Image", reason="Pillow is an extra")
    file = io.BytesIO()
    image.fromarray(255 - load_dataset().test.inputs[1, 0]).save(file, "PNG")  # dark on white
    page = open_page()
    choose = page.locator("#file")
    choose.set_input_files({"name": "two.png", "mimeType": "image/png", "buffer": file.getvalue()})
    sees(page, "2")
    expected = reader.predict(file.getvalue())["probabilities"]["2"]
    assert shares(page)["2"] == f"{expected:.1%}".replace("%", "\u00a0%")


def test_a_server_that_is_gone(browser, server):
    context = browser.new_context(viewport=DESKTOP)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{server.server_port}/")
    server.shutdown()
    server.server_close()
    draw(page, ONE)
    shows(page, "trouble", "The server does not answer")
    context.close()


def test_the_command_that_the_page_shows(open_page, server):
    page = open_page()
    shown = page.locator("#curl").inner_text()
    assert shown == f"curl --data-binary @digit.png http://127.0.0.1:{server.server_port}/predict"
