"""One seed, one result to the last bit: on any number of ranks, stopped, resumed, cut otherwise.

Every run is compared with one in a process of its own, without MPI. As the tests run once with
MPICH and once with Open MPI, and both have to equal that run, the two MPIs agree as well.

Compared are the hash of the parameters, the numbers of the evaluation and the bytes of the last
checkpoint, which holds the state of the optimizer too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from training_runs import ALONE, SIZES, checkpoint, read_summary, succeed, write_digits

pytestmark = pytest.mark.mpi_launch

STEPS = 7  # one epoch and two steps
STOP = 3
RECIPES = {
    "deep_convnet": "--model deep_convnet --optimizer adam --weight-decay 1e-3 --dropout 0.4"
    " --lr 0.002",
    "simple_convnet": "--model simple_convnet --optimizer momentum --weight-decay 1e-3 --lr 0.1"
    " --schedule cosine --reduction exact32",
    "two_layer": "--model two_layer --optimizer adamw --weight-decay 0.1 --lr 0.01"
    " --augment-shift 0",
    "three_layer": "--model three_layer --optimizer lamb --weight-decay 0.1 --lr 0.1"
    " --schedule step --clip-norm 0.05",
    "islands": "--model two_layer --reduction exact32 --sync local --islands 3 --sync-every 3",
}
MEASURED = ("params_sha256", "test_accuracy", "test_loss", "steps", "seed")


@dataclass(frozen=True)
class Recipe:
    """The flags of a run; `reference` is the directory of that run in a process of its own."""

    flags: tuple[str, ...]
    reference: Path

    def run(self, ranks: int, out: Path, *more: str, code: int = 0) -> Path:
        succeed(ranks, *self.flags, "--out", out, *more, code=code)
        return out


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module", params=RECIPES)
def recipe(
    request: pytest.FixtureRequest, data_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Recipe:
    """One network, trained without MPI."""
    flags = f"{RECIPES[request.param]} --steps {STEPS} --seed 5".split()
    reference = tmp_path_factory.mktemp(request.param)
    made = Recipe((*flags, *SIZES, "--data-dir", str(data_dir)), reference)
    made.run(ALONE, reference)
    return made


def measured(out: Path) -> dict[str, object]:
    summary = read_summary(out)
    return {key: summary[key] for key in MEASURED}


def assert_same_bits(out: Path, reference: Path) -> None:
    assert measured(out) == measured(reference)
    final = [checkpoint(directory, STEPS).read_bytes() for directory in (out, reference)]
    assert final[0] == final[1]


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 5, 7])
def test_on_any_number_of_ranks(recipe, tmp_path, num_ranks):
    recipe.run(num_ranks, tmp_path)
    assert read_summary(tmp_path)["ranks"] == num_ranks
    assert_same_bits(tmp_path, recipe.reference)
    train_losses = [read_summary(out)["train_loss"] for out in (tmp_path, recipe.reference)]
    assert train_losses[0] == train_losses[1]


@pytest.mark.parametrize("exchange", ["auto", "messages"])
def test_in_buckets_of_any_size(recipe, tmp_path, exchange):
    recipe.run(3, tmp_path, "--bucket-bytes", "10000", "--exchange", exchange)
    assert_same_bits(tmp_path, recipe.reference)


def test_stopped_on_3_ranks_and_resumed_on_2(recipe, tmp_path):
    recipe.run(3, tmp_path, "--stop-at", str(STOP), code=75)
    assert checkpoint(tmp_path, STOP).exists()
    assert not (tmp_path / "summary.json").exists()
    recipe.run(2, tmp_path, "--resume")
    assert_same_bits(tmp_path, recipe.reference)


@pytest.mark.parametrize(
    "changed",
    ["--seed 6", "--micro-batch-size 17", "--batch-size 49", "--weight-decay 0.01"],
)
def test_what_decides_the_result_changes_it(recipe, tmp_path, changed):
    """So a hash that is the same says something."""
    recipe.run(ALONE, tmp_path, *changed.split())
    assert measured(tmp_path)["params_sha256"] != measured(recipe.reference)["params_sha256"]


@pytest.mark.parametrize(
    ("recipe", "changed"),
    [
        ("deep_convnet", "--dropout 0.3"),
        ("deep_convnet", "--augment-shift 0"),
        ("three_layer", "--clip-norm 0"),
        ("three_layer", "--hidden-sizes 50 90"),
        ("three_layer", "--gamma 0.2"),
        ("islands", "--islands 2"),
        ("islands", "--sync-every 2"),
        ("islands", "--outer-lr 0.6"),
        ("islands", "--sync-reduction exact32"),
    ],
    indirect=["recipe"],
)
def test_so_does_what_only_some_recipes_have(recipe, tmp_path, changed):
    recipe.run(ALONE, tmp_path, *changed.split())
    assert measured(tmp_path)["params_sha256"] != measured(recipe.reference)["params_sha256"]
