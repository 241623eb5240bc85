"""NIC says what is in a scene of one or two digits, and how they lie (book section 8.4.3)."""

from __future__ import annotations

from captioning import (
    BEAM,
    draw_attention,
    draw_said,
    exact,
    judged,
    nats_from_pictures,
    relations,
    said,
    trained,
)

from distnet.experiments import DeviceLabOptions, Lab, Numbers, Required, at_least, at_most, main

# Quick: an untrained network has BLEU 0 and -0.01 nats, the quick one 0.21 and 0.38, but hardly a
# whole sentence right.
REQUIRED = [
    Required("8.4.3", "sentences that are right", "exact", at_least(0.93), only_full=True),
    Required("8.4.3", "BLEU-4 (quick: 80 updates)", "bleu4", at_least(0.96), quick=at_least(0.06)),
    Required("8.4.3", "right of another picture", "shuffled", at_most(0.02), only_full=True),
    Required(
        "8.4.3",
        "nats that a sentence gains by its picture",
        "nats_from_pictures",
        at_least(10),
        quick=at_least(0.1),
    ),
]
STEPS, QUICK_STEPS = 4_000, 80


def run(lab: Lab) -> Numbers:
    task = relations(lab, QUICK_STEPS if lab.quick else STEPS)
    network, history = trained(lab, task)
    lab.keep("nic", network)
    words = said(lab, network, task.test.inputs)
    with_beam = said(lab, network, task.test.inputs, BEAM)
    chosen = [0, 3, 8, 21]
    lab.picture("nic_said", lambda figure: draw_said(figure, task, words), (7.2, 6.4))
    lab.picture(
        "nic_attention", lambda figure: draw_attention(figure, network, task, chosen), (7.0, 3.6)
    )
    return {
        **judged(words, task.test.targets),
        "nats_from_pictures": nats_from_pictures(lab, network, task),
        "word_accuracy": history.evaluations["test"][-1]["word_accuracy"],
        "exact_with_beam": exact(with_beam, task.test.targets),
        "params_sha256": history.params_sha256,
    }


if __name__ == "__main__":
    main(__file__, run, REQUIRED, options=DeviceLabOptions)
