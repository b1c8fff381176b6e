"""Host: whose loop a method works in."""

from abc import ABC, abstractmethod

from torch import Tensor
from torch.optim import Optimizer


class Host(ABC):
    """Whose loop it is: what a Trainer would tell, and do, for a module of this library."""

    steps: int = 0
    """Optimizer steps taken."""
    total_steps: int = 0
    """Of the whole training, if that is known."""
    window: int = 1
    """Batches of the effective batch that begins."""
    completes: bool = True
    """Whether the batch at hand is the last one of its effective batch."""
    averages: bool = False
    """Whether the loop averages `.grad` over the processes behind the last pass itself."""

    @property
    @abstractmethod
    def optimizer(self) -> Optimizer | None:
        """Whose steps the weights take, if it is known."""

    @abstractmethod
    def backward(self, number: Tensor, retain_graph: bool) -> None:
        """Add the gradient of a number to the weights' `.grad`, in this process alone."""

    @abstractmethod
    def own_step(self) -> None:
        """Clip and step beside the loop's own steps, for methods of several steps per batch."""

    @abstractmethod
    def log(self, name: str, value: Tensor) -> None:
        """Note a number."""
