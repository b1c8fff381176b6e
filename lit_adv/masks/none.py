"""All weights move."""

from lit_adv.masks.mask import Mask


class NoMask(Mask):
    """No mask."""
