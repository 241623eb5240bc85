"""The images and environments in launch/: they install what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib

import launching
import pytest
import stand_ins

PROJECT = tomllib.loads((launching.ROOT / "pyproject.toml").read_text())["project"]
IMAGES = {"Containerfile": r"^COPY (.+) /source/", "apptainer.def": r"^ +(\S+) /source/\S+$"}


@pytest.mark.parametrize("name", IMAGES)
def test_images_copy_what_the_package_is_built_of(name):
    text = (stand_ins.LAUNCH / name).read_text()
    copied = {path for found in re.findall(IMAGES[name], text, re.M) for path in found.split()}
    assert copied == {"README.md", "LICENSE", "pyproject.toml", "distnet"}
    assert all((launching.ROOT / path).exists() for path in copied)


@pytest.mark.parametrize("name", IMAGES)
def test_images_name_extras_that_there_are(name):
    text = (stand_ins.LAUNCH / name).read_text()
    extras = set(re.findall(r"(?i)\bmpi=(\w+)", text))
    assert extras == {"mpich", "openmpi"} <= set(PROJECT["optional-dependencies"])


def test_environments_have_the_requirements_of_the_package():
    pixi = tomllib.loads((stand_ins.LAUNCH / "pixi.toml").read_text())
    asked = {name + version for name, version in pixi["dependencies"].items()}
    wanted = {*PROJECT["dependencies"], "python" + PROJECT["requires-python"]}
    assert asked == wanted
    conda = (stand_ins.LAUNCH / "environment.yml").read_text()
    listed = set(re.findall(r"^  - (\S+)$", conda, re.M))
    assert wanted <= listed
    for environment, features in pixi["environments"].items():
        assert all(feature in pixi["feature"] for feature in features), environment
