"""What docs/configuration.md shows is so."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from distnet.base.options import own_options
from distnet.sweeping.spec import trials_of
from distnet.training.config import ConfigError, TrainConfig, parse, to_toml

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "configuration.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The TOML files of the page, in the current directory."""
    monkeypatch.chdir(tmp_path)
    for content in blocks("toml"):
        Path(content.split()[1]).write_text(content)
    return tmp_path


def test_files_and_flags(files):
    digits = TrainConfig(
        model="two_layer", hidden_size=100, optimizer="momentum", lr=0.05, epochs=2, seed=3
    )
    assert parse(["--config", "digits.toml", "--seed", "3"]) == digits
    assert parse(["--config", "longer.toml"]).epochs == 20
    assert parse(["--config", "longer.toml"]).hidden_size == 100
    assert parse(["--config", "recipes/book"]).dropout == 0.5
    assert parse(["--config", "recipes/speedrun", "--seed", "3"]).seed == 3


def test_sweeps(files):
    grid, drawn = (trials_of(Path(f"{name}.toml"), Path("out")) for name in ("rates", "drawn"))
    table = PAGE.partition("   optimizer     lr  accuracy\n")[2].partition("compared")[0]
    shown = {tuple(line.split()[1:3]) for line in table.splitlines()}
    assert {(each.config.optimizer, str(each.config.lr)) for each in grid} == shown
    assert {each.config.validation for each in grid} == {0.1}
    assert len(drawn) == 20
    assert {each.config.hidden_size for each in drawn} == {100}


def test_every_recipe_of_the_package_is_on_the_page():
    recipes = {path.stem for path in (ROOT / "distnet" / "recipes").glob("*.toml")}
    assert set(re.findall(r"^\| `recipes/([\w-]+)`", PAGE, flags=re.MULTILINE)) == recipes
    for recipe in recipes:
        model = "resnet20" if recipe == "resnet20" else "deep_convnet"
        assert parse(["--config", f"recipes/{recipe}"]).model == model


def test_another_optimizer_leaves_behind_what_the_file_says_of_its_own(files):
    Path("config.toml").write_text(to_toml(TrainConfig(lr=0.5, beta1=0.5)))
    assert parse(["--config", "config.toml", "--optimizer", "sgd"]) == TrainConfig(optimizer="sgd")


def test_the_error_that_it_shows():
    with pytest.raises(ConfigError) as caught:
        parse(["--momentum", "0.5"])
    assert f"distnet: error: {caught.value}\n" in PAGE


def test_the_model_that_it_adds():
    (code,) = blocks("python")
    names: dict[str, type] = {}
    exec(code, names)
    tower = names["Tower"]
    options = own_options(tower)
    assert {name: settings.default for name, settings in options.items()} == {
        "units": 64,
        "depth": 3,
    }
    network = tower((1, 4, 4), 10, units=5, depth=2, seed=1)
    assert network.parameters.values.size == 17 * 5 + 6 * 5 + 6 * 10
    assert network.predict(np.zeros((2, 1, 4, 4), np.float32)).shape == (2, 10)
