"""AdaFlood: Bae et al., TMLR 2024, arXiv:2311.02891."""

from typing import Any

import torch
from torch import Tensor

from lit_adv.flood.flood import Flood
from lit_adv.functional import reduction
from lit_adv.ranges import at_least, whole
from lit_adv.tasks.task import Batch


class Ada(Flood):
    """`mean_i (|l_i - b_i| + b_i)`, each example with its own level: harder ones have a higher one.

    `b_i = -log((1 - gamma) * exp(-(alpha * a_i + beta)) + gamma)`, where a_i is the loss of example
    i under an auxiliary model that did not train on it (cross-validation in `folds` parts). gamma
    mixes the auxiliary model's probability of the label with 1: 0 = the auxiliary loss itself is
    the level, 1 = no flooding; all levels lie below `-log(gamma)`. Examples are told apart by
    `batch["index"]`, their row in the training set. The authors' code (BorealisAI/adaflood) can
    also fit alpha and beta, and refit only the last layers in each fold.

    Cost: `folds` trainings without flooding before the main one; nothing in its steps.

    Args:
        folds: m, auxiliary models.
        gamma: correction towards the label, in [0, 1].
        alpha: factor of the auxiliary losses.
        beta: added to the auxiliary losses, in nats.
        losses: file of auxiliary losses from an earlier run (`held_out_losses.pt` in its folder);
            None = train the auxiliary models.

    Raises:
        ValueError: one of the arguments lies outside its range.
    """

    of = "example"

    def __init__(
        self,
        folds: int = 5,
        gamma: float = 0.5,
        alpha: float = 1.0,
        beta: float = 0.0,
        losses: str | None = None,
    ) -> None:
        self.folds = whole(2, "flood.folds", folds, "an example needs a model that is without it")
        if not 0 <= gamma <= 1:
            raise ValueError(f"flood.gamma={gamma}: needs to lie in [0, 1]")
        self.gamma = gamma
        self.alpha = at_least(0, "flood.alpha", alpha)
        self.beta = at_least(0, "flood.beta", beta)
        self.losses = losses
        self.levels: Tensor | None = None

    def adopt(self, losses: Tensor) -> None:
        """Set the levels from the auxiliary loss of every training example, [examples]."""
        gamma = losses.new_tensor(self.gamma, dtype=torch.float64)
        affine = self.alpha * losses.double() + self.beta
        levels = -torch.logaddexp(torch.log1p(-gamma) - affine, gamma.log())
        self.levels = levels.float().clamp(min=0)  # rounding may leave -0

    def slope(self, loss: Tensor, batch: Batch | None = None) -> Tensor:
        if self.levels is None:
            raise ValueError(
                "flood=ada: no levels yet; call adopt(losses) with the losses of all training "
                "examples under models that did not train on them"
            )
        if batch is None or "index" not in batch:
            raise ValueError(
                'flood=ada: a batch needs "index", the rows of its examples in the training set'
            )
        if self.levels.device != loss.device:
            self.levels = self.levels.to(loss.device)
        return reduction.slope(loss, self.levels[batch["index"]].to(loss.dtype))

    def state_dict(self) -> dict[str, Any]:
        return {} if self.levels is None else {"levels": self.levels}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.levels = state.get("levels", self.levels)
