"""The price of apples and oranges, and how it depends on everything (book sections 5.1 to 5.4)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from graph import Add, Multiply

from distnet.experiments import COLORS, Lab, Numbers, Required, main, near

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TOLERANCE = 1e-12
NODE = {"boxstyle": "circle", "facecolor": "white"}
LABEL = {"facecolor": "white", "edgecolor": "none", "pad": 1}

REQUIRED = [
    Required("A5", "2 apples at 100, tax 1.1: price", "apple_price", near(220, TOLERANCE)),
    Required(
        "A5",
        "its derivatives: apple, number of apples, tax",
        "apple_derivatives",
        near([2.2, 110, 200], TOLERANCE),
    ),
    Required("A5", "and 3 oranges at 150: price", "price", near(715, TOLERANCE)),
    Required(
        "A5",
        "its derivatives: apple, number, orange, number, tax",
        "derivatives",
        near([2.2, 110, 3.3000000000000003, 165, 650], TOLERANCE),
    ),
]


@dataclass
class Purchase:
    """Apples and oranges; or, of the same shape, the derivatives of their price."""

    apple: float
    num_apples: float
    orange: float
    num_oranges: float
    tax: float


class Shop:
    """The graph: (apple * num_apples + orange * num_oranges) * tax."""

    def __init__(self) -> None:
        self.times_apples, self.times_oranges, self.times_tax = Multiply(), Multiply(), Multiply()
        self.both = Add()

    def forward(self, p: Purchase) -> float:
        self.apples = self.times_apples.forward(p.apple, p.num_apples)
        self.oranges = self.times_oranges.forward(p.orange, p.num_oranges)
        self.fruits = self.both.forward(self.apples, self.oranges)
        return self.times_tax.forward(self.fruits, p.tax)

    def backward(self, d_price: float = 1) -> Purchase:
        self.d_fruits, d_tax = self.times_tax.backward(d_price)
        self.d_apples, self.d_oranges = self.both.backward(self.d_fruits)
        d_orange, d_num_oranges = self.times_oranges.backward(self.d_oranges)
        d_apple, d_num_apples = self.times_apples.backward(self.d_apples)
        return Purchase(d_apple, d_num_apples, d_orange, d_num_oranges, d_tax)


def run(lab: Lab) -> Numbers:
    apples = Shop()
    apple_price = apples.forward(Purchase(100, 2, 0, 0, 1.1))
    by_apple = apples.backward()
    shop, purchase = Shop(), Purchase(100, 2, 150, 3, 1.1)
    price = shop.forward(purchase)
    by = shop.backward()
    lab.picture("shop", lambda figure: draw_shop(figure, shop, purchase, price, by), size=(8, 4.2))
    return {
        "apple_price": apple_price,
        "apple_derivatives": [by_apple.apple, by_apple.num_apples, by_apple.tax],
        "price": price,
        "derivatives": [getattr(by, field.name) for field in fields(by)],
    }


def draw_shop(figure: Figure, shop: Shop, p: Purchase, price: float, by: Purchase) -> None:
    """The graph with values above its edges and derivatives of the price below."""
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set(xlim=(-0.9, 8.6), ylim=(-0.2, 5.4))
    for x, y, symbol in ((2, 4.2, "×"), (2, 1, "×"), (4, 2.6, "+"), (6.2, 2.6, "×")):
        axes.text(x, y, symbol, size=16, ha="center", va="center", bbox=NODE)
    draw_edge(axes, (0, 5), (2, 4.2), p.apple, by.apple, "apple")
    draw_edge(axes, (0, 3.4), (2, 4.2), p.num_apples, by.num_apples, "apples")
    draw_edge(axes, (0, 1.8), (2, 1), p.orange, by.orange, "orange")
    draw_edge(axes, (0, 0.2), (2, 1), p.num_oranges, by.num_oranges, "oranges")
    draw_edge(axes, (2, 4.2), (4, 2.6), shop.apples, shop.d_apples)
    draw_edge(axes, (2, 1), (4, 2.6), shop.oranges, shop.d_oranges)
    draw_edge(axes, (4, 2.6), (6.2, 2.6), shop.fruits, shop.d_fruits)
    draw_edge(axes, (4.6, 0.6), (6.2, 2.6), p.tax, by.tax, "tax")
    draw_edge(axes, (6.2, 2.6), (8.4, 2.6), price, 1)


def draw_edge(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    value: float,
    derivative: float,
    name: str = "",
) -> None:
    arrow = {"arrowstyle": "->", "shrinkA": 4 if name else 14, "shrinkB": 14}
    axes.annotate("", xy=end, xytext=start, arrowprops=arrow)
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    axes.text(x, y + 0.12, f"{value:g}", color=COLORS[0], ha="center", va="bottom", bbox=LABEL)
    axes.text(x, y - 0.12, f"{derivative:g}", color=COLORS[1], ha="center", va="top", bbox=LABEL)
    axes.text(*start, name, ha="right", va="center")


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
