"""The page of `distnet serve`, in one piece: nothing is loaded but answers of the same server."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

from distnet.reporting.html import Html, document, element
from distnet.reporting.page import STYLE
from distnet.serving.reader import Reader

SCRIPT = Path(__file__).with_name("page.js")
OWN_STYLE = Path(__file__).with_name("page.css")
SIDE = 280  # dots of the sheet that is drawn on, ten for each of MNIST's 28
PEN = 20  # dots: two of MNIST's, as thick as most of its strokes
MOST_BARS = 12  # classes that all have a bar; of more the most probable ones


def page(reader: Reader, name: str, question: str) -> tuple[str, str]:
    """The page about the network `name`, and its content security policy.

    question: the path of the server at which `Reader.layers` answers.
    """
    network, digits = reader.network, reader.reads_digits
    script = SCRIPT.read_text()
    style = STYLE.read_text() + OWN_STYLE.read_text()
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'"
    )
    about = {
        "question": question,
        "classes": network.classes[: MOST_BARS + 1],
        "mostBars": MOST_BARS,
        **dict(zip(("channels", "rows", "columns"), network.input_shape, strict=True)),
        "pen": PEN,
    }
    what = "a digit" if digits else "something"
    title = f"Draw {what}, and see what the network thinks"
    content = [
        element("h1", title),
        element("p", f"{name}: {network.parameters.size:,} parameters."),
        element("div", _sheet(what), _answer(), _seen(digits), class_="draw"),
        element("h2", "On its way through the layers"),
        element(
            "p",
            "Each square is a channel, black the least number of the layer and white the largest; "
            "of more channels than can be shown the first ones.",
        ),
        element("div", id="layers", class_="tiles layers"),
        element("h2", "From a program"),
        element("p", element("code", id="curl"), class_="scrolls"),
        Html(f'<script type="application/json" id="about">{_in_script(about)}</script>'),
        Html(f"<script>{script}</script>"),
    ]
    return document(title, style, content, policy), policy


def _sheet(what: str) -> Html:
    """To draw on, what is done with the drawing, and what has gone wrong."""
    sheet = element(
        "canvas",
        "Drawing needs a mouse or a finger; a picture can be chosen below.",
        id="sheet",
        width=SIDE,
        height=SIDE,
        role="img",
        aria_label=f"a sheet to draw {what} on",
    )
    buttons = element(
        "p",
        element("button", "Undo", type="button", id="undo"),
        element("button", "Clear", type="button", id="clear"),
        element(
            "label",
            "Choose a picture",
            Html('<input type="file" id="file" accept="image/*">'),
            class_="button",
        ),
        class_="buttons",
    )
    return element("section", sheet, buttons, element("p", id="trouble", role="alert"))


def _answer() -> Html:
    """The likeliest class, and bars for all."""
    verdict = element(
        "p", element("output", "", id="verdict"), class_="verdict", aria_live="polite"
    )
    return element("section", verdict, element("div", id="bars", class_="chances"))


def _seen(digits: bool) -> Html:
    """What becomes of the drawing on its way into the network."""
    image = Html('<img id="seen" alt="the picture as the network reads it" hidden>')
    seen = element("figure", element("figcaption", "What the network sees"), image)
    prepared = (
        "It is scaled to 20 × 20 pixels and its centre of mass put into the middle of 28 × 28, as "
        "the digits of MNIST were."
        if digits
        else "It is scaled, and cropped about the centre, to the size that the network reads."
    )
    return element("section", seen, element("p", prepared, class_="quiet"), id="input")


def _hash(text: str) -> str:
    """How a policy names the one script, or style, that may be there."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _in_script(data: object) -> str:
    """JSON that cannot end the element that it stands in."""
    return json.dumps(data).replace("<", "\\u003c")
