"""Adversarial training and loss flooding for fine-tuning, as PyTorch Lightning modules."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lit_adv.adoption.adopted import adopt as adopt


def __getattr__(name: str) -> Any:
    if name == "adopt":  # importing it takes as long as importing Lightning
        from lit_adv.adoption.adopted import adopt

        return adopt
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
