"""Options of any command: lists, arguments, paths, options of entries, files upon files, hints."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated

import pytest

from distnet.base.options import (
    ConfigError,
    Option,
    argument,
    details,
    option,
    own_options,
    parse_options,
    parse_values,
    read_toml,
    recipes,
    settle,
    to_toml,
    with_default,
    with_options_of,
)
from distnet.base.options.toml import RECIPES

SHARE = {">=": 0, "<": 1}


@dataclass(frozen=True)
class Measurement:
    """Measures something.

    More about it.
    """

    source: str = argument("what is measured", "SOURCE", path=True)
    others: tuple[str, ...] = argument("what it is held against", "OTHER", several=True)
    ranks: tuple[int, ...] = option((1, 2), "ranks", group="size", metavar="N", limits={">=": 1})
    layers: tuple[str, ...] = option(("conv",), "layers", group="size", choices=("conv", "linear"))
    out: str = option("", "where figures go", group="files", metavar="FILE", path=True)
    rate: float = option(0.5, "100 % is 1", group="size", metavar="X", limits=SHARE)
    quick: bool = option(False, "less", group="size")


@dataclass(frozen=True)
class Plain:
    """Options and no arguments."""

    size: int = option(1, "size", group="size", metavar="N", limits={">=": 1, "<=": 9})
    out: str = option("", "where it goes", group="files", metavar="FILE", path=True)


@dataclass(frozen=True)
class Larger(Plain):
    """As Plain, with another default."""

    size: int = with_default(Plain, "size", 7)


def round_shape(*, radius: Annotated[float, Option("radius", metavar="X", limits=SHARE)] = 0.5):
    return radius


def flat_shape(
    name: str = "",
    *,
    sides: Annotated[tuple[int, ...], Option("sides", metavar="N", limits={">=": 1})] = (3, 4),
    width: Annotated[int, Option("width", metavar="N", limits={">=": 1, "<=": 9})] = 2,
    seed: int = 0,
):
    return name, sides, width, seed


def long_shape(*, width: Annotated[int, Option("width", metavar="N", limits={">=": 9})] = 10):
    return width


SHAPES = {"round": round_shape, "flat": flat_shape, "long": long_shape}
ENTRIES = {"shape": {name: own_options(shape) for name, shape in SHAPES.items()}}


@dataclass(frozen=True)
@with_options_of({"shape": "form"}, **ENTRIES)
class Drawing:
    """Draws."""

    shape: str = option("round", "what is drawn", group="form", choices=SHAPES)
    ink: float = option(1.0, "ink", group="form", metavar="X", limits={">": 0})

    def __post_init__(self) -> None:
        settle(self)


def parsed(line: str, cls=Measurement):
    return parse_options(cls, line.split(), "measure")


def error_of(line: str, cls=Measurement) -> str:
    with pytest.raises(ConfigError) as caught:
        parsed(line, cls)
    assert str(caught.value).isprintable()
    return str(caught.value)


def written(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def test_arguments_have_names_and_may_stand_among_flags():
    expected = Measurement(source="a", others=("b", "c"), ranks=(4, 8))
    for line in (
        "a b c --ranks 4 8",
        "--ranks 4 8 -- a b c",
        "a --ranks=4 b --ranks 4 8 --rate .5 c",
    ):
        assert parsed(line) == expected


def test_a_missing_or_needless_argument_is_told_with_the_usage():
    usage = "measure SOURCE OTHER ... [--config FILE.toml] [options]"
    assert error_of("") == f"found no SOURCE, expected {usage}"
    assert error_of("a --rate 0.1") == f"found no OTHER, expected {usage}"
    assert error_of("x", Plain) == "found 'x', expected options only (--name value)"
    assert error_of("a b --ranks 1 --sourc x").startswith("unknown option '--sourc'; --help")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--ranks 1 x", "--ranks: found 'x', expected a whole number >= 1"),
        ("--ranks 0", "--ranks: found 0, expected a whole number >= 1"),
        ("--ranks", "--ranks: expected at least one argument"),
        (
            "--layers conf",
            "--layers: found 'conf', expected one of conv, linear; did you mean conv?",
        ),
        ("--rate 1", "--rate: found 1.0, expected a number >= 0 and < 1"),
        ("--quik", "unknown option '--quik'; did you mean --quick?"),
    ],
)
def test_a_wrong_flag_is_one_line(flags, message):
    assert error_of(f"a b {flags}") == message


def test_help_has_arguments_and_groups(capsys):
    with pytest.raises(SystemExit) as ended:
        parsed("--help")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: measure SOURCE OTHER ... [--config FILE.toml] [options]")
    assert "Measures something." in text and "More about it" not in text
    for part in ("SOURCE", "OTHER", "size:", "--ranks N [N ...]", "(default: 1 2)", "100 % is 1"):
        assert part in text


@pytest.mark.parametrize("path", ["~", "~/x", "~/a/../b"])
def test_a_path_may_start_at_home(tmp_path, monkeypatch, path):
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = path.replace("~", str(tmp_path))
    found = parsed(f"{path} {path} --out={path}")
    assert (found.source, found.out, found.others) == (expected, expected, (path,))
    file = written(tmp_path / "x.toml", f'out = "{path}"\n')
    assert read_toml(Plain, str(file)) == {"out": expected}
    assert parsed("--config ~/x.toml", Plain).out == expected


def test_another_default_is_the_default_everywhere(capsys):
    assert Larger() == Larger(size=7) and Plain().size == 1
    assert parse_values(Larger, [], "x") == {}
    with pytest.raises(SystemExit):
        parsed("--help", Larger)
    assert "(default: 7)" in capsys.readouterr().out


def test_own_options_are_annotated_parameters_with_their_defaults():
    found = own_options(flat_shape)
    assert {name: settings.default for name, settings in found.items()} == {
        "sides": (3, 4),
        "width": 2,
    }
    assert own_options(partial(flat_shape, width=5))["width"].default == 5
    assert own_options(len) == {}


def test_an_option_of_entries_belongs_to_those_that_take_it():
    assert asdict(Drawing()) == {
        "shape": "round",
        "ink": 1.0,
        "radius": 0.5,
        "sides": None,
        "width": None,
    }
    flat = parsed("--shape flat --sides 5 6 7", Drawing)
    assert (flat.sides, flat.width, flat.radius) == ((5, 6, 7), 2, None)
    assert error_of("--width 3", Drawing) == (
        "--width: shape round does not take it; flat and long do"
    )
    assert error_of("--shape flat --radius 0.1", Drawing) == (
        "--radius: shape flat does not take it; round does"
    )


def test_an_option_of_two_entries_has_the_limits_of_the_chosen_one():
    assert parsed("--shape long --width 20", Drawing).width == 20
    assert error_of("--shape long --width 3", Drawing) == (
        "width: found 3, expected a whole number >= 9"
    )
    assert error_of("--shape flat --width 0", Drawing).startswith("--width: found 0, expected")


def test_help_says_whose_an_option_is_and_what_each_has_by_default(capsys):
    with pytest.raises(SystemExit):
        parsed("--help", Drawing)
    text = " ".join(capsys.readouterr().out.split())
    assert "width (default: 2 for flat; 10 for long)" in text
    assert "another --shape than the file's leaves behind what the file says of its own" in text


def test_two_options_of_one_name_are_a_mistake_of_the_program():
    class Twice:
        radius: float = 1.0

    with pytest.raises(TypeError, match="Twice has two options radius, one of shape"):
        with_options_of({"shape": "form"}, **ENTRIES)(Twice)
    unlike = {"a": own_options(round_shape), "b": {"radius": Option("radius", 1)}}
    with pytest.raises(TypeError, match="an option has different types for a, b"):
        with_options_of({"shape": "form"}, shape=unlike)(type("Unlike", (), {}))


# Files that build upon others.


def test_a_file_builds_upon_another_one(tmp_path):
    (tmp_path / "deeper").mkdir()
    written(tmp_path / "first.toml", 'size = 2\nout = "x"\n')
    written(tmp_path / "deeper" / "second.toml", 'base = "../first.toml"\nsize = 3\n')
    third = written(tmp_path / "third.toml", 'base = "deeper/second.toml"\n')
    assert read_toml(Plain, str(third)) == {"size": 3, "out": "x"}
    found = parsed(f"--config {third} --size 4", Plain)
    assert found == Plain(size=4, out="x")
    complete = written(tmp_path / "complete.toml", to_toml(found))
    assert "base" not in complete.read_text()
    assert parsed(f"--config {complete}", Plain) == found


def test_a_file_that_names_another_entry_leaves_behind_what_its_base_says_of_the_one_before(
    tmp_path,
):
    written(tmp_path / "base.toml", 'shape = "flat"\nwidth = 9\nink = 2\n')
    file = written(tmp_path / "own.toml", 'base = "base.toml"\nshape = "long"\n')
    assert parsed(f"--config {file}", Drawing) == Drawing(shape="long", width=10, ink=2)


def test_what_is_left_behind_is_decided_by_all_that_a_file_builds_upon(tmp_path):
    written(tmp_path / "first.toml", 'shape = "flat"\nink = 2\n')
    written(tmp_path / "second.toml", 'base = "first.toml"\nwidth = 9\n')  # of flat
    file = written(tmp_path / "own.toml", 'base = "second.toml"\nshape = "long"\n')
    expected = parsed(f"--config {tmp_path / 'second.toml'} --shape long", Drawing)
    assert parsed(f"--config {file}", Drawing) == expected == Drawing("long", width=10, ink=2)


def test_a_byte_order_mark_is_no_content(tmp_path):
    file = written(tmp_path / "own.toml", "\ufeffsize = 3\n")
    assert read_toml(Plain, str(file)) == {"size": 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('base = "missing.toml"', "missing.toml: found no file, expected a TOML file"),
        ("base = 3", "own.toml: base: found 3, expected the name of a file"),
        ('base = "own.toml"', "own.toml: base: found files in a circle"),
        ('base = "again.toml"', "own.toml: base: found files in a circle"),
        ('base = "wrong.toml"', "wrong.toml: size: found 0, expected a whole number >= 1"),
        ('base = "recipes/bok"', "expected a TOML file; did you mean recipes/book?"),
        ('base = "a\\u0000"', "found no file"),
    ],
)
def test_a_wrong_base_is_one_line(tmp_path, content, message):
    written(tmp_path / "again.toml", 'base = "own.toml"')
    written(tmp_path / "wrong.toml", "size = 0")
    file = written(tmp_path / "own.toml", content)
    assert message in error_of(f"--config {file}", Plain)


def test_recipes_come_with_the_package(tmp_path, monkeypatch):
    assert recipes() == sorted(f"recipes/{path.stem}" for path in RECIPES.iterdir())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    written(tmp_path / "recipes" / "book", "size = 5\n")
    assert read_toml(Plain, "recipes/book") == {"size": 5}, "a file of one's own goes first"


def test_every_field_has_help():
    for cls in (Measurement, Plain, Drawing):
        assert all(re.search(r"\w", details(item).help) for item in fields(cls))
