"""Networks as they were published, on digits, and but for LeNet narrow (7.7, 8.2.2 to 8.2.4).

The definitions are those that `distnet train --model` has; their options make them small. 10,000
digits, of 28 x 28 pixels for LeNet and of 14 x 14 for the others, four or five epochs.
"""

from __future__ import annotations

from small_digits import first_digits, small_digits

from distnet.experiments import Lab, Numbers, Required, at_least, at_most, main
from distnet.models import MODELS
from distnet.nn import Network

REQUIRED = [
    Required(
        "7.7",
        "LeNet, AlexNet: test accuracy (quick: 3 epochs of 3,000 digits)",
        "first_accuracies",
        at_least(0.93),
        quick=at_least(0.7),
    ),
    Required(
        "8.2",
        "VGG, GoogLeNet, ResNet: test accuracy (quick: 3 epochs of 3,000 digits)",
        "accuracies",
        at_least(0.93),
        quick=at_least(0.7),
    ),
    Required("8.2.3", "GoogLeNet: parameters", "googlenet_parameters", at_most(40_000)),
]


def networks(seed: int) -> dict[str, Network]:
    shape = (1, 14, 14)
    lenet = MODELS["lenet5"]((1, 28, 28), 10, seed=seed)
    alexnet = MODELS["alexnet"](
        shape, 10, lrn=True, width=0.125, hidden_sizes=(100,), dropout=0.0, seed=seed
    )
    vgg = MODELS["vgg16"](
        shape, 10, convolutions=(2, 2, 2), width=0.25, hidden_sizes=(64,), dropout=0.0, seed=seed
    )
    googlenet = MODELS["googlenet"](shape, 10, modules=(2, 2), width=0.125, dropout=0.0, seed=seed)
    resnet = MODELS["resnet18"](shape, 10, blocks=(2, 2), width=0.25, seed=seed)
    later = {"vgg": vgg, "googlenet": googlenet, "resnet": resnet}
    return {"lenet": lenet, "alexnet": alexnet, **later}


def run(lab: Lab) -> Numbers:
    num_train = 3_000 if lab.quick else 10_000
    small, whole = small_digits(lab, num_train), first_digits(lab, num_train)
    epochs = {"googlenet": 5}
    accuracies, made = [], networks(lab.seed)
    for name, network in made.items():
        train, test = whole if name == "lenet" else small
        history = lab.fit(
            network,
            *train,
            epochs=3 if lab.quick else epochs.get(name, 4),
            optimizer="adam",
            lr=0.002,
            batch_size=50 if lab.quick else 100,
            micro_batch_size=50,
            evaluate_on={"test": test},
            evaluate_every=10_000,
        )
        accuracies.append(history.accuracy("test")[-1])
    return {
        "first_accuracies": accuracies[:2],
        "accuracies": accuracies[2:],
        "parameters": [network.parameters.size for network in made.values()],
        "googlenet_parameters": made["googlenet"].parameters.size,
    }


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
