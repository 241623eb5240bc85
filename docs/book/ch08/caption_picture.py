"""Says what is in a picture of yours, and where it looked for each word.

    python docs/book/ch08/caption_picture.py runs/book/nic.safetensors note.jpg said.png

The picture, one or two digits, dark on light paper or the other way round, is scaled to the size
that the network reads, 40 x 40 pixels: digits should be a third to a half of its height.
"""

from __future__ import annotations

from pathlib import Path

from captioning import draw_looks

from distnet.experiments.applying import PictureOptions, apply, digits, named
from distnet.experiments.pictures import write_picture
from distnet.models.nic import captions, decoder_of
from distnet.nn import CaptionDecoder, Network


def use(options: PictureOptions) -> None:
    network = named(options.model, says_sentences, "one that says sentences, of section 8.4.3")
    image = digits(options.picture, network.input_shape)
    (words,) = captions(network, image[None])
    sentence = " ".join(network.classes[word] for word in words if word)
    print(f'"{sentence}"')
    looked_at = decoder_of(network).looked_at[0]
    said = [(network.classes[word], looked_at[place]) for place, word in enumerate(words) if word]

    def draw(figure) -> None:
        whole, rest = figure.subfigures(2, 1, height_ratios=(3, 1))
        axes = whole.subplots()
        axes.imshow(image[0], cmap="gray")
        axes.set_axis_off()
        axes.set_title(sentence)
        draw_looks(rest.subplots(1, max(1, len(said)), squeeze=False)[0], image[0], said)

    write_picture(Path(options.out), draw, (6.4, 6.4))
    print(f"wrote {options.out}")


def says_sentences(network: Network) -> bool:
    return bool(network.body.layers) and isinstance(network.body.layers[-1], CaptionDecoder)


if __name__ == "__main__":
    apply(__file__, use)
