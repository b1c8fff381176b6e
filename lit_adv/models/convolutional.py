"""A small convolutional network from scratch, for small images."""

from typing import Any

from torch import Tensor, nn
from transformers.modeling_outputs import ImageClassifierOutput

from lit_adv.models.image_model import ImageModel, of_images
from lit_adv.models.initial import Init, initialise
from lit_adv.tasks.classification import HeadInit


class Convolutional(nn.Module):
    """3 x 3 convolutions with `relu`, of which each after the first halves the image; a head.

    Args:
        channels: of the images.
        classes: logits.
        width: channels of the first layer; each further one has twice as many.
        layers: their number.
    """

    def __init__(self, channels: int, classes: int, width: int = 32, layers: int = 2) -> None:
        super().__init__()
        widths = [channels] + [width * 2**layer for layer in range(layers)]
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 3, stride=1 if before == channels else 2, padding=1),
                nn.ReLU(),
            )
            for before, after in zip(widths, widths[1:], strict=False)
        )
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, pixel_values: Tensor) -> ImageClassifierOutput:
        """[batch, C, H, W] -> logits, [batch, classes]."""
        hidden = pixel_values
        for layer in self.layers:
            hidden = layer(hidden)
        return ImageClassifierOutput(logits=self.head(hidden.mean((2, 3))))  # pyright: ignore


def build(
    splits: Any,
    *,
    width: int = 32,
    layers: int = 2,
    low: float = 0.0,
    high: float = 1.0,
    init: Init = "own",
    head_init: HeadInit = "random",
) -> ImageModel:
    """A convolutional network with random weights.

    Args:
        splits: images; whose channels and classes the network has.
        width: channels of the first layer.
        layers: their number.
        low: smallest valid value of a pixel.
        high: largest.
        init: rule of the weights; see `initial`.
        head_init: of the last layer, `random` or `closed_form`; see Classification.

    Raises:
        ValueError: the data are texts.
    """
    images = of_images(splits, "convolutional")
    network = Convolutional(images.shape[0], len(images.label_names), width, layers)
    initialise(network, init)
    return ImageModel(network=network, low=low, high=high, head_init=head_init)
