"""A small vision transformer from scratch, for small images."""

from typing import Any

from transformers import ViTConfig, ViTForImageClassification

from lit_adv import regions
from lit_adv.kinds.kind import class_sizes
from lit_adv.models.image_model import ImageModel, of_images
from lit_adv.models.initial import Init, initialise
from lit_adv.ranges import whole
from lit_adv.tasks.classification import HeadInit


def build(
    splits: Any,
    *,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    patch: int = 2,
    dropout: float = 0.0,
    low: float | list[float] = 0.0,
    high: float | list[float] = 1.0,
    init: Init = "own",
    compile: bool = False,
    gradient_checkpointing: bool = False,
    head_init: HeadInit = "random",
) -> ImageModel:
    """A vision transformer (arXiv:2010.11929) with random weights.

    Args:
        splits: images; whose size and classes the network has.
        width: of the patches' embeddings and of the layers.
        layers: their number.
        heads: attention heads per layer.
        patch: pixels on each side of a patch.
        dropout: probability, everywhere.
        low: smallest valid value of a pixel, one number or one per channel.
        high: largest.
        init: rule of the linear layers' weights; see `initial`.
        compile: the layers, by torch.compile.
        gradient_checkpointing: recompute the layers' activations instead of keeping them.
        head_init: of the last layer, `random` or `closed_form`; see Classification.

    Raises:
        ValueError: the data are texts, or their images cannot be cut into patches of this size.
    """
    whole(1, "model.patch", patch)
    images = of_images(splits, "vit")
    channels, height, breadth = images.shape
    if height != breadth or height % patch:
        raise ValueError(
            f"model.patch={patch}: images of {height} x {breadth} pixels; needs to divide their "
            "side, and they need to be square"
        )
    config = ViTConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        image_size=height,
        patch_size=patch,
        num_channels=channels,
        **class_sizes(images.label_names),
    )
    network = ViTForImageClassification(config)
    initialise(network, init)
    regions.prepare(network, compile=compile, gradient_checkpointing=gradient_checkpointing)
    return ImageModel(network=network, low=low, high=high, head_init=head_init)
