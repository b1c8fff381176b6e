"""Handwritten digits, the real images that come with scikit-learn."""

from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from lit_adv.data.images import Images, ImageSplit, ImageSplits
from lit_adv.ranges import whole


@dataclass(kw_only=True, eq=False)
class Digits(Images):
    """1,797 images of 8 x 8 pixels in [0, 1], ten classes; shuffled by `seed` and cut.

    They are the test part of UCI's Optical Recognition of Handwritten Digits (Alpaydin and Kaynak
    1998), by 13 writers, in 17 levels of grey.

    Args:
        validation_size: images for validation.
        test_size: images for testing.

    Raises:
        ValueError: a size below 1, or nothing is left to train on.
        ValueError: scikit-learn is not installed.
    """

    validation_size: int = 200
    test_size: int = 400

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("validation_size", "test_size"):
            whole(1, f"data.{name}", getattr(self, name))

    def load(self) -> ImageSplits:
        if find_spec("sklearn") is None:
            raise ValueError(
                "data=digits: the images come with scikit-learn, which is not installed; pip "
                "install scikit-learn"
            )
        from sklearn.datasets import load_digits  # here: a second that no other data need

        pixels, labels = load_digits(return_X_y=True)
        images = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
        whole = ImageSplit(images=images, labels=labels.astype(np.int64))
        rest, test = whole.cut(min(self.test_size, len(whole)), self.seed)
        train, validation = rest.cut(min(self.validation_size, len(rest)), self.seed)
        names = [str(digit) for digit in range(10)]
        return ImageSplits(train=train, validation=validation, test=test, label_names=names)
