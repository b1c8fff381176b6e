"""Flooding (Ishida et al., ICML 2020, arXiv:2002.08709) at a level that a run without it suggests.

The level is a rule of thumb, not the paper's: its authors search a grid.
"""

from typing import Literal

from lit_adv import turn
from lit_adv.flood.fixed import Fixed


class Half(Fixed):
    """`|L - b| + b` with `b = factor * (training loss where the validation loss was lowest)`.

    Until then the training loss was worth lowering, so the level lies below it. Both losses are
    read from the metrics.csv of a run without flooding, before training; that run should be one of
    the same method, model and data, for with a method that perturbs, the training loss is that of
    perturbed inputs. Cost: that run; nothing in the steps.

    Args:
        run: folder of that run.
        factor: share of the training loss, in [0, 1]; 0 floods nothing.
        scope: as in Fixed.

    Raises:
        ValueError: factor or scope is out of range, or the run does not say where it turned: there
            is no metrics.csv in the folder or no loss in that, the validation loss was lowest at
            the end, or the run was flooded itself.
    """

    def __init__(
        self, run: str, factor: float = 0.5, scope: Literal["global", "micro"] = "global"
    ) -> None:
        if not 0 <= factor <= 1:
            raise ValueError(f"flood.factor={factor}: needs to lie in [0, 1]")
        self.turn = turn.read(run, turn.find)
        super().__init__(factor * self.turn.training_loss, scope)
