"""Pieces of a page: elements, tables, pictures inside of it. Text is escaped here alone."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from distnet.base.arrays import Array

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Html(str):
    """Text that is HTML already, and is not escaped again."""


def element(name: str, *content: object, **attributes: object) -> Html:
    """`<name attributes>content</name>`; an underscore in an attribute's name is a dash.

    What is not `Html` is text. `class_` is the attribute class; None leaves an attribute out.
    """
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{shown}>{join(content)}</{name}>")


def document(title: str, style: str, sections: Iterable[object], policy: str = POLICY) -> str:
    """A whole page, which without another content security policy loads nothing and runs nothing.

    One that is sent on can do no harm then.
    """
    allowed = escape(policy, quote=False)
    head = element(
        "head",
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{allowed}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", title),
        element("style", Html(style)),
    )
    body = element("body", element("main", *sections))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def join(content: Iterable[object]) -> Html:
    """Pieces after one another."""
    pieces = (each if isinstance(each, Html) else escape(str(each)) for each in content)
    return Html("".join(pieces))


def table(
    heads: Sequence[object], rows: Sequence[Sequence[object]], marked: Sequence[bool] = ()
) -> Html:
    """A table whose first column has the names of the rows; `marked` rows stand out.

    Wider ones than the page can be scrolled by themselves.
    """
    head = element("tr", *(element("th", each, scope="col") for each in heads))
    body = []
    for number, (name, *cells) in enumerate(rows):
        is_marked = bool(marked) and marked[number]
        row = element("th", name, scope="row"), *(element("td", cell) for cell in cells)
        body.append(element("tr", *row, class_="marked" if is_marked else None))
    whole = element("table", element("thead", head), element("tbody", *body))
    return element("div", whole, class_="scrolls")


def picture(pixels: Array, alt: str, scale: int = 1) -> Html:
    """A picture inside of the page, see `png`, each pixel `scale` wide."""
    height, width = pixels.shape[:2]
    tag = f'<img src="{data_url(pixels)}" alt="{escape(alt)}" title="{escape(alt)}"'
    return Html(f'{tag} width="{width * scale}" height="{height * scale}">')


def data_url(pixels: Array) -> str:
    """The address of a picture, see `png`, that is all of the picture."""
    return f"data:image/png;base64,{base64.b64encode(png(pixels)).decode()}"


def png(pixels: Array) -> bytes:
    """A PNG file (RFC 2083) of bytes: grey `(H, W)`, or red, green and blue `(H, W, 3)`.

    With two or four channels the last says how little the page shows through.
    """
    height, width = pixels.shape[:2]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[pixels.size // (height * width)]
    lines = np.ascontiguousarray(pixels, np.uint8).reshape(height, -1)
    raw = np.concatenate([np.zeros((height, 1), np.uint8), lines], axis=1)  # no filter
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(raw.tobytes(), 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
