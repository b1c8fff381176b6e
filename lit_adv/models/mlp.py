"""A multi-layer perceptron from scratch, for small images."""

from typing import Any

from torch import Tensor, nn
from transformers.modeling_outputs import ImageClassifierOutput

from lit_adv.models.image_model import ImageModel, of_images
from lit_adv.models.initial import Init, initialise
from lit_adv.ranges import whole
from lit_adv.tasks.classification import HeadInit


class MLP(nn.Module):
    """`relu` layers over all pixels, and a linear head.

    Args:
        pixels: numbers per image.
        classes: logits.
        width: of each layer.
        layers: their number.
    """

    def __init__(self, pixels: int, classes: int, width: int = 128, layers: int = 2) -> None:
        super().__init__()
        widths = [pixels] + [width] * layers
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(before, after), nn.ReLU())
            for before, after in zip(widths, widths[1:], strict=False)
        )
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, pixel_values: Tensor) -> ImageClassifierOutput:
        """[batch, C, H, W] -> logits, [batch, classes]."""
        hidden = pixel_values.flatten(1)
        for layer in self.layers:
            hidden = layer(hidden)
        return ImageClassifierOutput(logits=self.head(hidden))  # pyright: ignore


def build(
    splits: Any,
    *,
    width: int = 128,
    layers: int = 2,
    low: float | list[float] = 0.0,
    high: float | list[float] = 1.0,
    init: Init = "own",
    head_init: HeadInit = "random",
) -> ImageModel:
    """A perceptron with random weights.

    Args:
        splits: images; whose size and classes the network has.
        width: of each layer.
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
    images = of_images(splits, "mlp")
    network = MLP(images.pixels, len(images.label_names), width, layers)
    initialise(network, init)
    return ImageModel(network=network, low=low, high=high, head_init=head_init)
