"""Three networks learn to tell pictures apart by small patches of them (section 8.5.1).

Two become the eyes with which style transfer compares pictures, the third is its judge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textures import FILES, patches, texture_network

from distnet.base.arrays import Array
from distnet.experiments import Lab, Numbers, Required, at_least, main

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REQUIRED = [
    Required(
        "textures",
        "test patches that all networks tell right at least (quick: 40 steps, one network)",
        "worst",
        at_least(0.65),
        at_least(0.25),
    )
]
EYE, JUDGE, EYE_2 = "texture_eye", "texture_judge", "texture_eye_2"


def run(lab: Lab) -> Numbers:
    steps, names = (40, [EYE]) if lab.quick else (500, [EYE, JUDGE, EYE_2])
    train = patches(1_200 if lab.quick else 12_000, lab.seed)
    test = patches(600 if lab.quick else 3_000, lab.seed, for_test=True)
    accuracies, hashes = [], []
    for number, name in enumerate(names):
        network = texture_network(lab.seed + number)
        history = lab.fit(
            network,
            *train,
            steps=steps,
            optimizer="adam",
            lr=lambda step: 0.002 * min(1.0, 2 * (1 - step / steps) + 0.02),
            batch_size=48,
            micro_batch_size=24,
            evaluate_on={"test": test},
            evaluate_every=steps,
            seed=lab.seed + number,
        )
        accuracies.append(history.accuracy("test")[-1])
        hashes.append(history.params_sha256)
        if not lab.quick:  # those that lie here stay, should `--out` lead here
            lab.keep(name, network)
    lab.picture("textures", lambda figure: draw_patches(figure, train.inputs), (9, 1.3))
    return {"worst": min(accuracies), "accuracies": accuracies, "params_sha256": hashes}


def draw_patches(figure: Figure, images: Array) -> None:
    """Two patches of each picture, one below the other."""
    for number, axes in enumerate(figure.subplots(2, len(FILES)).flat):
        axes.imshow(images[number].transpose(1, 2, 0))
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_visible(False)


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
