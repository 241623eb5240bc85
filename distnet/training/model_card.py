"""README.md of a run: what was trained, on what, with which result, and how to use it.

After the idea of Mitchell et al. 2019 (arXiv:1810.03993): what somebody has to know who finds the
directory later. What only people know, such as what a network is good for, is for them to add.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from distnet.base.arrays import format_shape
from distnet.base.options import details, flag
from distnet.base.words import counted
from distnet.data import Dataset
from distnet.nn import Network
from distnet.parallel import REDUCTIONS
from distnet.training import columns
from distnet.training.config import TrainConfig
from distnet.training.registries import ENTRIES

MAX_CLASSES = 12  # that are named
CAUTION = """
The best checkpoint was chosen by the test samples, so its accuracy on them is a little too good;
with `--validation` it is not.
"""
INPUTS = "data_dir", "init"  # what is in them decides, if not their names


def model_card(
    path: Path,
    summary: Mapping[str, Any],
    config: TrainConfig,
    *,
    network: Network,
    dataset: Dataset,
    num_samples: int,
) -> str:
    """The text, in Markdown, of a run in the directory `path`.

    summary: that of the run; num_samples: how many of the data set it was trained on.
    """
    chosen_by = "valid" if "best_valid_accuracy" in summary else "test"
    rows = [
        *_results(summary),
        ("best checkpoint", _best(summary, chosen_by)),
        ("length", f"{summary['steps']} steps, {summary['epochs']:.4g} epochs"),
        (
            "trained on",
            f"{_plain(summary['data'])}, {num_samples:,} samples, SHA-256 `{dataset.sha256}`",
        ),
        ("parameters", f"{network.parameters.values.size:,}, SHA-256 `{summary['params_sha256']}`"),
        ("computed by", _computed(summary, config)),
    ]
    table = "\n".join(f"| {name} | {text} |" for name, text in rows)
    quoted = shlex.quote(str(path))
    size, version = format_shape(network.input_shape), import_module("distnet").__version__
    classes = dataset.classes
    return f"""\
# {summary["model"]} on {_plain(summary["data"])}

A network that tells {len(classes)} classes of inputs of {size} apart: {_named(classes)}.

| | |
|---|---|
{table}
{CAUTION if chosen_by == "test" else ""}
## How to use it

```python
import distnet

network = distnet.load({str(path)!r})
print(network.classes, network.predict(images).argmax(axis=1))
```

`distnet predict {quoted} FILES` does the same for files, `distnet evaluate {quoted}`
tells what it gets right by class, `distnet report {quoted}` shows it.

## How it was made

`{_command(config)}` with distnet {version}. The whole configuration is in
`config.toml`: `distnet train --config {shlex.quote(f"{path}/config.toml")} --out ANOTHER`
makes it again{_again(config)}.

```text
{network}
```
"""


def _results(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    names = [f"{of}_{what}" for of in ("valid", "test") for what in ("accuracy", "loss")]
    return [
        (
            f"{name.replace('_', ' ')} at the end",
            columns.text(name.partition("_")[2], summary[name]),
        )
        for name in names
        if summary.get(name) is not None
    ]


def _best(summary: Mapping[str, Any], chosen_by: str) -> str:
    accuracy = columns.text("accuracy", summary[f"best_{chosen_by}_accuracy"])
    return f"{accuracy} after step {summary['best_step']}, chosen by the {chosen_by} samples"


def _computed(summary: Mapping[str, Any], config: TrainConfig) -> str:
    found = summary["fingerprint"]
    ranks = summary["ranks"]
    return (
        f"{counted(ranks, 'rank')}, NumPy {found['numpy']}, {found['blas']} "
        f"{found['blas_version']} ({found['blas_architecture']}), arithmetic "
        f"{config.arithmetic}, reduction {summary['reduction']}"
    )


def _again(config: TrainConfig) -> str:
    if not REDUCTIONS[config.reduction].exact:
        return ""
    if config.arithmetic == "portable":
        return ", with the same bits on any machine and any number of ranks"
    return ", with the same bits where NumPy has the same kernels, on any number of ranks"


def _named(classes: Sequence[str]) -> str:
    more = f" and {len(classes) - MAX_CLASSES} more" if len(classes) > MAX_CLASSES else ""
    return ", ".join(map(_plain, classes[:MAX_CLASSES])) + more


def _plain(name: str) -> str:
    """A name of the user's, of which Markdown shall make nothing."""
    return re.sub(r"([\\`*<&\[|])", r"\\\1", name)


def _command(config: TrainConfig) -> str:
    """With the flags that differ from what they are without being given, as far as they decide."""
    chosen = {name: getattr(config, name) for name in ENTRIES}
    plain, with_defaults = type(config)(), type(config)(**chosen)  # models have their own ones
    changed = []
    for item in fields(config):
        name, value = item.name, getattr(config, item.name)
        usual = getattr(plain if name in ENTRIES else with_defaults, name)
        decides = details(item).decides or name in INPUTS
        if value is None or value == usual or not decides:
            continue
        if isinstance(value, bool):
            changed.append(flag(name if value else f"no_{name}"))
            continue
        words = value if isinstance(value, tuple) else (value,)
        changed.append(" ".join([flag(name), *(shlex.quote(str(word)) for word in words)]))
    return " ".join(["distnet train", *changed])
