"""A small convolutional network from scratch, for small images."""

from typing import Any

from torch import Tensor, nn
from transformers.modeling_outputs import ImageClassifierOutput

from lit_adv.models.image_model import ImageModel, of_images
from lit_adv.models.initial import Init, initialise
from lit_adv.ranges import whole
from lit_adv.tasks.classification import HeadInit


class Convolutional(nn.Module):
    """3 x 3 convolutions with `relu`, of which each after the first halves the image; a head.

    Args:
        shape: of the images: channels, height, width.
        classes: logits.
        width: channels of the first layer; each further one has twice as many.
        layers: their number.
    """

    def __init__(
        self, shape: tuple[int, int, int], classes: int, width: int = 32, layers: int = 2
    ) -> None:
        super().__init__()
        channels, *sides = shape
        self.layers = nn.ModuleList()
        for layer in range(layers):
            wider, stride = width * 2**layer, 2 if layer else 1
            convolution = nn.Conv2d(channels, wider, 3, stride=stride, padding=1)
            self.layers.append(nn.Sequential(convolution, nn.ReLU()))
            channels, sides = wider, [-(-side // stride) for side in sides]
        self.head = nn.Linear(channels * sides[0] * sides[1], classes)

    def forward(self, pixel_values: Tensor) -> ImageClassifierOutput:
        """[batch, C, H, W] -> logits, [batch, classes]."""
        hidden = pixel_values
        for layer in self.layers:
            hidden = layer(hidden)
        return ImageClassifierOutput(logits=self.head(hidden.flatten(1)))  # pyright: ignore


def build(
    splits: Any,
    *,
    width: int = 32,
    layers: int = 2,
    low: float | list[float] = 0.0,
    high: float | list[float] = 1.0,
    init: Init = "own",
    head_init: HeadInit = "random",
) -> ImageModel:
    """A convolutional network with random weights.

    Args:
        splits: images; whose size and classes the network has.
        width: channels of the first layer.
        layers: their number.
        low: smallest valid value of a pixel, one number or one per channel.
        high: largest.
        init: rule of the weights; see `initial`.
        head_init: of the last layer, `random` or `closed_form`; see Classification.

    Raises:
        ValueError: the data are texts, or a size is below 1.
    """
    whole(1, "model.width", width)
    whole(1, "model.layers", layers)
    images = of_images(splits, "convolutional")
    network = Convolutional(images.shape, len(images.label_names), width, layers)
    initialise(network, init)
    return ImageModel(network=network, low=low, high=high, head_init=head_init)
