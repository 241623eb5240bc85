"""Flags, TOML files and Python describe the same configuration, and nothing else gets through."""

import json
import math
import os
import re
import tomllib
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest

from distnet.base.options import details, flag, recipes
from distnet.base.options.toml import MAX_FILE_BYTES
from distnet.building.job import default_out
from distnet.data import load_dataset
from distnet.models import MODELS
from distnet.nn import Network
from distnet.optim import OPTIMIZERS, make_optimizer, make_schedule
from distnet.parallel import REDUCTIONS
from distnet.training.config import (
    ConfigError,
    TrainConfig,
    default_micro_batch_size,
    identity,
    parse,
    to_toml,
)
from distnet.training.registries import ENTRIES, REGISTRIES, SYNCHRONIZATIONS

DEFAULTS = asdict(TrainConfig())


def error_of(argv: list[str]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(argv)
    message = str(caught.value)
    assert message.isprintable(), "an error is one line"
    assert len(message) < 300
    return message


def toml_file(directory: Path, content: str | bytes) -> Path:
    path = directory / "run.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def toml_error(directory: Path, content: str | bytes) -> str:
    return error_of(["--config", str(toml_file(directory, content))])


def test_without_arguments_the_defaults():
    assert parse([]) == TrainConfig()


@pytest.mark.parametrize("item", fields(TrainConfig), ids=lambda item: item.name)
def test_every_option_has_its_flag(item):
    settings = details(item)
    entry = [flag(settings.owner), next(iter(settings.takers))] if settings.owner else []
    if settings.kind is bool:
        assert getattr(parse([*entry, "--no-" + item.name]), item.name) is False
        return
    value = settings.choices[-1] if settings.choices else {float: "0.5"}.get(settings.kind)
    value = value or ("4096" if item.name == "bucket_bytes" else "7")
    found = getattr(parse(["--batch-size", "8", flag(item.name), value, *entry]), item.name)
    assert str(*found if settings.is_list else [found]) == value


def test_dashes_and_underscores_and_equals_signs_are_the_same():
    spellings = [["--batch-size", "50"], ["--batch_size", "50"], ["--batch_size=50"]]
    assert {parse(argv) for argv in spellings} == {replace(TrainConfig(), batch_size=50)}
    assert parse(["--out=a_b"]).out == "a_b"


def test_resume_alone_means_the_latest_checkpoint():
    assert parse(["--resume"]).resume == "latest"
    assert parse(["--resume", "--epochs", "2"]).resume == "latest"
    assert parse(["--resume", "x.safetensors"]).resume == "x.safetensors"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--epochs x", "--epochs: found 'x', expected a whole number >= 1 and <= 1000000"),
        ("--epochs 0", "--epochs: found 0, expected a whole number >= 1 and <= 1000000"),
        ("--epochs -3", "--epochs: found -3, expected a whole number >= 1 and <= 1000000"),
        ("--epochs 1.5", "--epochs: found '1.5', expected a whole number >= 1 and <= 1000000"),
        ("--epochs", "--epochs: expected one argument"),
        ("--keep=--", "--keep: found '--', expected a value"),
        ("--config=--", "--config: found '--', expected a value"),
        ("--lr 0", "--lr: found 0.0, expected a number > 0 and <= 1000"),
        ("--lr nan", "--lr: found nan, expected a number > 0 and <= 1000"),
        ("--lr inf", "--lr: found inf, expected a number > 0 and <= 1000"),
        ("--lr 1e400", "--lr: found inf, expected a number > 0 and <= 1000"),
        ("--momentum 1", "--momentum: found 1.0, expected a number >= 0 and < 1"),
        ("--momentum 0.5", "--momentum: optimizer adam does not take it; momentum, nesterov and"),
        ("--model two_layer --dropout 0", "--dropout: model two_layer does not take it; "),
        ("--schedule constant --warmup 0", "--warmup: schedule constant does not take it; linear"),
        ("--schedule step --milestones 0.5 x", "--milestones: found 'x', expected a number > 0"),
        ("--schedule step --milestones", "--milestones: expected at least one argument"),
        ("--optimizer adm", "--optimizer: found 'adm', expected one of sgd, momentum, nesterov,"),
        ("--model vgg", "--model: found 'vgg', expected one of deep_convnet, simple_convnet,"),
        ("--epoch 3", "unknown option '--epoch'; did you mean --epochs?"),
        ("--batchsize=3", "unknown option '--batchsize'; did you mean --batch-size?"),
        ("--confg x", "unknown option '--confg'; did you mean --config?"),
        ("--modle x", "unknown option '--modle'; did you mean --model?"),  # not --modules
        ("--optimzier x", "unknown option '--optimzier'; did you mean --optimizer?"),
        ("--zzz", "unknown option '--zzz'; --help lists all options"),
        ("-e 3", "unknown option '-e'; --help lists all options"),
        ("train", "found 'train', expected options only (--name value)"),
        ("--progress=3", "--progress/--no-progress: ignored explicit argument '3'"),
        ("--stop-at 9 --steps 8", "--stop-at: found 9, expected at most --steps 8"),
        (
            "--batch-size 8 --micro-batch-size 9",
            "--micro-batch-size: found 9, expected at most --batch-size 8",
        ),
    ],
)
def test_a_bad_command_line_is_one_line(argv, message):
    assert error_of(argv.split()).startswith(message)


@pytest.mark.parametrize(
    "argv",
    [
        ["--seed", "9" * 5000],
        ["--seed=1\n2"],
        ["--out", "a\nb"],
        ["--out", "a\0b"],
        ["--out", "\udcff"],
        ["--out", "x" * 5000],
        ["--ep\nochs", "3"],
        ["--config", "a\0b"],
        ["--config", ""],
        ["--config", "/nowhere/at\nall.toml"],
        ["--progress=\n"],
        ["--", "x"],
        [""],
    ],
)
def test_hostile_arguments_are_one_line_too(argv):
    error_of(argv)


def test_a_small_batch_brings_the_default_micro_batch_down():
    sizes = {1: 1, 10: 10, 32: 32, 33: 17, 50: 25, 100: 25, 256: 32, 1000: 32}
    for batch_size, micro_batch_size in sizes.items():
        found = parse(["--batch-size", str(batch_size)])
        assert found.micro_batch_size == micro_batch_size
    assert TrainConfig().micro_batch_size == default_micro_batch_size(TrainConfig().batch_size)


def test_help_names_every_option_once_and_says_that_the_batch_is_global(capsys):
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for item in fields(TrainConfig):
        assert len(re.findall(rf"^  {flag(item.name)}[, ]", text, re.M)) == 1
    assert "GLOBAL: over all ranks" in text


def test_python_is_held_to_the_same_rules():
    assert TrainConfig(lr=1).lr == 1.0
    assert type(TrainConfig(lr=1).lr) is float
    for values in ({"epochs": True}, {"epochs": 1.0}, {"progress": 1}, {"lr": "1"}, {"seed": None}):
        with pytest.raises(ConfigError, match=next(iter(values))):
            TrainConfig(**values)


ENTRY = [(owner, entry) for owner, entries in ENTRIES.items() for entry in entries]


def test_the_choices_are_what_the_package_offers():
    for name, registry in (REGISTRIES | {"reduction": REDUCTIONS}).items():
        (item,) = (item for item in fields(TrainConfig) if item.name == name)
        assert details(item).choices == tuple(registry)


@pytest.mark.parametrize(("owner", "entry"), ENTRY)
def test_an_entry_has_values_for_what_it_takes_and_for_nothing_else(owner, entry):
    config = parse([flag(owner), entry])
    for item in fields(TrainConfig):
        if details(item).owner == owner:
            takes = entry in details(item).takers
            assert (getattr(config, item.name) is not None) == takes
            assert (item.name in config.settings(owner)) == (takes and item.name != "lr")
    assert tomllib.loads(to_toml(config)).keys() >= config.settings(owner).keys()


@pytest.mark.parametrize(("owner", "entry"), ENTRY)
def test_what_an_entry_takes_makes_what_it_names(owner, entry, monkeypatch):
    monkeypatch.setattr(Network, "_initialize", lambda network, seed: None)  # slow for large ones
    config = parse([flag(owner), entry])
    match owner:
        case "model":
            network = MODELS[entry]((1, 32, 32), 10, seed=0, **config.settings("model"))
            assert network.parameters.values.size
        case "optimizer":
            made = make_optimizer(entry, 3, **config.settings("optimizer"))
            assert made.hyper == config.settings("optimizer")
            assert made.lr == config.lr
        case "sync":
            SYNCHRONIZATIONS[entry](**config.settings("sync"))
        case "schedule":
            assert make_schedule(entry, config.lr, 10, **config.settings("schedule"))(5) > 0


def test_a_value_is_held_to_the_rules_of_the_chosen_entry():
    assert TrainConfig(model="two_layer", activation="relu").activation == "relu"
    assert TrainConfig(model="three_layer", hidden_sizes=[7, 8, 9]).hidden_sizes == (7, 8, 9)
    with pytest.raises(
        ConfigError, match="activation: found 'cosh', expected one of sigmoid, relu"
    ):
        TrainConfig(model="two_layer", activation="cosh")
    with pytest.raises(ConfigError, match="--hidden-size: model deep_convnet does not take it; "):
        TrainConfig(hidden_size=50)


def test_the_learning_rate_is_what_suits_the_optimizer():
    assert parse(["--optimizer", "sgd"]).lr == OPTIMIZERS["sgd"].lr
    assert parse(["--optimizer", "sgd", "--lr", "0.3"]).lr == 0.3
    assert parse([]).lr == 0.004


def test_who_names_another_entry_leaves_behind_what_was_said_about_the_one_before(tmp_path):
    path = toml_file(tmp_path, to_toml(TrainConfig(lr=0.5, beta1=0.5, warmup=0.3, seed=4)))
    other = parse(["--config", str(path), "--optimizer", "momentum"])
    assert other == TrainConfig(optimizer="momentum", warmup=0.3, seed=4)
    same = parse(["--config", str(path), "--optimizer", "adam", "--beta1", "0.6"])
    assert (same.lr, same.beta1) == (0.5, 0.6)
    unnamed = toml_file(tmp_path, "lr = 0.5\nmomentum = 0.8\n")
    assert parse(["--config", str(unnamed), "--optimizer", "nesterov"]).momentum == 0.8


def test_toml_is_complete_and_runnable_again(tmp_path):
    config = TrainConfig(
        lr=1e-05, out='Ünï "quoted" \\ dir', seed=2**63 - 1, progress=False, batch_size=64
    )
    text = to_toml(config)
    taken = {name: value for name, value in asdict(config).items() if value is not None}
    assert tomllib.loads(text) == taken
    assert parse(["--config", str(toml_file(tmp_path, text))]) == config


@pytest.mark.parametrize(("owner", "entry"), ENTRY)
def test_toml_of_every_entry_is_runnable_again(tmp_path, owner, entry):
    config = parse([flag(owner), entry])
    assert parse(["--config", str(toml_file(tmp_path, to_toml(config)))]) == config


def test_dashes_and_underscores_are_the_same_in_a_file(tmp_path):
    path = toml_file(tmp_path, "batch-size = 50\nlog_every = 3\n")
    assert parse(["--config", str(path)]) == parse(["--batch-size", "50", "--log-every", "3"])


@pytest.mark.parametrize("owner", REGISTRIES)
def test_an_entry_that_comes_too_late_for_flags_is_refused(owner, monkeypatch):
    registry = REGISTRIES[owner]
    monkeypatch.setitem(registry, "mine", next(iter(registry.values())))
    with pytest.raises(ConfigError, match=f"{owner} 'mine': found it added after the options were"):
        parse([])


def test_flags_win_over_the_file(tmp_path):
    path = toml_file(tmp_path, "epochs = 2\nlr = 1\n")
    expected = replace(TrainConfig(), epochs=3, lr=1.0)
    assert parse(["--epochs", "3", "--config", str(path)]) == expected
    assert parse(["--config", str(path), "--epochs", "3"]) == expected


def test_epochs_win_over_the_steps_of_a_file(tmp_path):
    """`--config recipes/speedrun --epochs 3` trained for the steps of the recipe."""
    path = toml_file(tmp_path, "steps = 7\nepochs = 2\n")
    assert parse(["--config", str(path)]) == TrainConfig(steps=7, epochs=2)
    assert parse(["--config", str(path), "--epochs", "3"]) == TrainConfig(epochs=3)
    assert parse(["--config", str(path), "--steps", "9"]) == TrainConfig(steps=9, epochs=2)
    assert parse(["--config", "recipes/speedrun", "--epochs", "3"]).steps == 0
    above = tmp_path / "above.toml"
    above.write_text(f'base = "{path.name}"\nepochs = 3')
    assert parse(["--config", str(above)]) == TrainConfig(epochs=3)
    assert parse(["--epochs", "3", "--steps", "9"]) == TrainConfig(steps=9, epochs=3)


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_is_a_complete_and_valid_run(tmp_path, name):
    config = parse(["--config", name])
    assert parse(["--config", str(toml_file(tmp_path, to_toml(config)))]) == config
    assert parse(["--config", str(toml_file(tmp_path, f"base = '{name}'"))]) == config
    assert parse(["--config", name, "--seed", "7"]) == replace(config, seed=7)


def test_a_wrong_file_is_wrong_even_where_a_flag_wins(tmp_path):
    path = toml_file(tmp_path, "epochs = 0\n")
    assert "epochs: found 0" in error_of(["--config", str(path), "--epochs", "3"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epoch = 3", "unknown key 'epoch'; did you mean epochs?"),
        ("batch-sise = 3", "unknown key 'batch-sise'; did you mean batch_size?"),
        ("batch-size = 30\nbatch_size = 30", "batch_size: found it twice, once with a dash"),
        ("batch-size = 0", "batch-size: found 0, expected a whole number >= 1"),
        ("epochs = '3'", "epochs: found '3', expected a whole number >= 1"),
        ("epochs = 3.0", "epochs: found 3.0, expected a whole number >= 1"),
        ("epochs = true", "epochs: found True, expected a whole number >= 1"),
        ("epochs = [3]", "epochs: found [3], expected a whole number >= 1"),
        ("[epochs]\nx = 3", "epochs: found {'x': 3}, expected a whole number >= 1"),
        ("progress = 1", "progress: found 1, expected true or false"),
        ("lr = nan", "lr: found nan, expected a number > 0"),
        ("lr = -inf", "lr: found -inf, expected a number > 0"),
        ("lr = 1" + 400 * "0", "lr: found 1000000000"),
        ("seed = 0x" + 5000 * "f", "seed: found a huge int, expected a whole number >= 0"),
        ("seed = " + 5000 * "9", "not valid TOML (Exceeds the limit"),
        ('out = "a\\u0000b"', "out: found 'a\\x00b', expected text without control characters"),
        ("x = " + 5000 * "[", "found nested values, expected `key = value` lines"),
        ("epochs = 3\nepochs = 4", "not valid TOML (Cannot overwrite a value"),
        ("epochs", "not valid TOML (Expected '=' after a key"),
        ("epochs = 3\0", "not valid TOML (Expected newline or end of document"),
        (b"out = '\xff'", "found byte 0xff at offset 7, expected UTF-8 text"),
        (b"\x89PNG\r\n\x1a\n", "found byte 0x89 at offset 0, expected UTF-8 text"),
        ("batch_size = 8\nmicro_batch_size = 9", "--micro-batch-size: found 9, expected at most"),
        ("momentum = 0.5", "--momentum: optimizer adam does not take it; momentum, nesterov and"),
        ("momentum = 1", "momentum: found 1.0, expected a number >= 0 and < 1"),
        ("milestones = 0.5", "milestones: found 0.5, expected a list, each a number > 0 and < 1"),
        ("milestones = [0.5, 'x']", "milestones: found 'x', expected a number > 0 and < 1"),
        ("optimizer = 'adm'", "adam, adamw, lars, lamb; did you mean adam?"),
        ("data = 'mine'", "shapes; --data-dir is for your own"),
    ],
)
def test_a_bad_file_is_one_line_that_names_key_found_and_expected(tmp_path, content, message):
    error = toml_error(tmp_path, content)
    assert message in error
    assert error.startswith((f"{tmp_path}/run.toml: ", "--"))


def test_what_is_no_small_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    huge = tmp_path / "huge.toml"
    with huge.open("wb") as file:
        file.truncate(10**12)
    error = error_of(["--config", str(huge)])
    assert f"found more than the {MAX_FILE_BYTES} bytes of a TOML file" in error
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "missing.toml", Path("/dev/zero")):
        assert "found no file, expected a TOML file" in error_of(["--config", str(path)])


def test_2000_mutations_of_a_file_give_a_config_or_a_config_error(tmp_path):
    draw = np.random.default_rng(20)
    valid = to_toml(TrainConfig()).encode()
    configs = 0
    for _ in range(2000):
        try:
            config = parse(["--config", str(toml_file(tmp_path, mutated(valid, draw)))])
        except ConfigError as error:
            assert str(error).isprintable()
        else:
            configs += 1
            assert parse(["--config", str(toml_file(tmp_path, to_toml(config)))]) == config
    assert 50 < configs < 1950, "the mutations must reach both sides"


def mutated(content: bytes, draw: np.random.Generator) -> bytes:
    """One to three bytes replaced, pieces deleted or copied elsewhere."""
    data = bytearray(content)
    for _ in range(draw.integers(1, 4)):
        at, other, length = (int(n) for n in draw.integers(0, (len(data), len(data), 40)))
        match draw.integers(0, 4):
            case 0:
                data[at] = draw.integers(0, 256)
            case 1:
                data[at] = draw.choice(list(b"0123456789.-e\"'[]{}=\n#_"))
            case 2:
                del data[at : at + length]
            case _:
                data[at:at] = data[other : other + length]
    return bytes(data)


def test_identity_holds_what_decides_the_results_and_nothing_else():
    config = TrainConfig()
    free = "data_dir stop_at device exchange bucket_bytes out resume checkpoint_every keep"
    free += " balance stall_timeout stall_action verify_every log_every timeline profile progress"
    free += " expect_hosts audit init hash_every quiet csv tensorboard"
    free += " overwrite allreduce shard_optimizer"
    free += " arithmetic_bits"  # of float32
    taken = {name for name, value in DEFAULTS.items() if value is not None}
    assert set(identity(config)) == taken - set(free.split()) - {"steps"}
    assert identity(replace(config, out="x", keep=1, stop_at=3)) == identity(config)
    assert identity(replace(config, seed=1)) != identity(config)
    portable = replace(config, arithmetic="portable")
    assert identity(portable).items() - identity(config).items() == {
        ("arithmetic", "portable"),
        ("arithmetic_bits", 12),
    }
    assert replace(config, **identity(config)) == config


def test_identity_is_as_a_checkpoint_gives_it_back():
    config = TrainConfig(model="three_layer", schedule="step", milestones=(0.2, 0.4))
    assert json.loads(json.dumps(identity(config))) == identity(config)
    assert replace(config, **identity(config)) == config


def test_identity_holds_the_length_only_where_a_schedule_refers_to_it():
    by_steps = identity(TrainConfig(steps=8, epochs=2))
    assert by_steps["steps"] == 8
    assert by_steps == identity(TrainConfig(steps=8, epochs=3))
    longer = [identity(TrainConfig(schedule="constant", epochs=n)) for n in (1, 2)]
    assert longer[0] == longer[1]


def test_results_go_where_a_user_finds_them():
    digits = load_dataset()
    assert default_out(TrainConfig(), digits) == "runs/deep_convnet-mnist-seed0"
    letters = replace(digits, name="letters")
    assert default_out(TrainConfig(), letters) == "runs/deep_convnet-letters-seed0"


def test_every_number_has_bounds_that_exclude_nan_and_infinity():
    for item in fields(TrainConfig):
        for settings in details(item).takers.values() or [details(item)]:
            if settings.kind in (int, float):
                assert len(settings.limits) == 2
                assert all(map(math.isfinite, settings.limits.values()))
