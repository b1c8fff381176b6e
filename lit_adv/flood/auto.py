"""Flooding-X: Liu et al., ACL 2022, "Improving BERT's Resistance to Adversarial Attacks"."""

import math
import warnings
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor

from lit_adv import processes
from lit_adv.accordance.readings import SERIES, Direction, Reading, SignWatch
from lit_adv.callbacks.gradient_accordance import GradientAccordance
from lit_adv.flood.flood import Flood, check_level
from lit_adv.functional import reduction
from lit_adv.ranges import at_least, one_of, whole
from lit_adv.tasks.task import Batch

Series = Literal["cross", "same", "all", "validation"]
TURNS: dict[str, Direction] = {"cross": "neg_to_pos", "validation": "pos_to_neg"}


class Auto(Flood):
    """Plain training until gradient accordance changes its sign, then `|L - b| + b`.

    b is the mean training loss of the window in which the sign has changed, times a factor. The
    accordance is that of training batches with held-out data (`validation`: does a step still
    lower the held-out loss? from + to -), or among training batches (`cross`, `same`, `all`). The
    criterion's code was never released, and of its sign the paper is said to state both; `cross`
    from - to + is what its figure shows. `docs/flooding-x.md` compares them on real data.

    A FineTuner with this flood brings the callback that measures along; one of the same class given
    to Trainer gives way to it. The validation data that decide are never those of the test.

    Args:
        pairs: the series whose sign counts.
        direction: the change that switches on: `neg_to_pos`, `pos_to_neg` or `any`; None = as
            above, for `same` and `all` any.
        hysteresis: standard errors that a value needs to lie away from zero to have a sign; on real
            data it came too late with 1 more often than too early with 0.
        warmup: optimizer steps before which no change counts.
        b: the level in nats; None = the mean training loss.
        factor: of that mean.
        once: whether flooding stays on; if not, the change back switches it off.
        accordance: how it is measured; None = both kinds of pairs, over 16 batches per epoch.

    Raises:
        ValueError: an argument lies outside its range, or the series is not measured.
    """

    def __init__(
        self,
        pairs: Series = "validation",
        direction: Direction | None = None,
        hysteresis: float = 0.0,
        warmup: int = 0,
        b: float | None = None,
        factor: float = 1.0,
        once: bool = True,
        accordance: GradientAccordance | None = None,
    ) -> None:
        self.pairs = one_of(SERIES, "flood.pairs", pairs)
        self.direction = direction or TURNS.get(pairs, "any")
        at_least(0, "flood.hysteresis", hysteresis)
        self._watch = SignWatch("any", hysteresis)
        SignWatch(self.direction)  # refuses what is none
        self.warmup = whole(0, "flood.warmup", warmup)
        self.b = None if b is None else check_level("flood=auto", b)
        self.factor = at_least(0, "flood.factor", factor)
        self.once = once
        self.accordance = accordance or GradientAccordance(against="both", batches=16)
        if self.accordance.how.against == ("train" if pairs == "validation" else "validation"):
            raise ValueError(
                f"flood.pairs={pairs}: not measured with "
                f"flood.accordance.against={self.accordance.how.against}; set both"
            )
        self.accordance.pairs = pairs
        self.accordance.listeners.append(self.hear)
        self.decisions: list[dict[str, Any]] = []
        """Step, level (None: off), and the value that decided."""
        self._chance: float | None = None
        self._losses: Tensor | None = None  # of the window so far: their sum and number
        self._level_to(None)

    @property
    def acts(self) -> bool:
        return True

    def callbacks(self) -> list[L.Callback]:
        return [self.accordance]

    def check(self, chance: float | None) -> None:
        if self.b is not None:
            self.level = self.b
            super().check(chance)
            self.level = None
        self._chance = chance

    def slope(self, loss: Tensor, batch: Batch | None = None) -> Tensor:
        return torch.ones_like(loss) if self.level is None else reduction.slope(loss, self.level)

    def note(self, loss: Tensor) -> None:
        more = torch.stack([loss.detach().double(), torch.ones_like(loss, dtype=torch.float64)])
        self._losses = more if self._losses is None else self._losses + more

    def hear(self, reading: Reading) -> dict[str, float]:
        """Decide; every process alike. Returns what is logged."""
        losses, self._losses = self._losses, None
        value, error = reading.values.get(self.pairs, math.nan), reading.error(self.pairs)
        changed = self._watch.changes(value, error)
        if changed and reading.step > self.warmup:
            wanted = {"neg_to_pos": 1, "pos_to_neg": -1}.get(self.direction, self._watch.sign)
            if self.level is None and self._watch.sign == wanted and losses is not None:
                self._switch_on(reading.step, value, losses)
            elif self.level is not None and not self.once:
                self._level_to(None)
                self.decisions.append({"step": reading.step, "b": None, "accordance": value})
        return {} if self.level is None else {"flood/level": self.level}

    def _switch_on(self, step: int, value: float, losses: Tensor) -> None:
        total, count = processes.of_first(losses).tolist()
        level = self.b if self.b is not None else self.factor * total / count
        if self._chance is not None and level >= self._chance:
            warnings.warn(
                f"flood=auto: accordance changes its sign at step {step}, but level {level:.3f} is "
                f"not below {self._chance:.3f}, the loss of a predictor that ignores its input: "
                "no flooding; a flood.warmup of more steps leaves such changes out",
                stacklevel=2,
            )
            return
        self._level_to(level)
        self.decisions.append({"step": step, "b": level, "accordance": value})

    def _level_to(self, level: float | None) -> None:
        self.level = level
        # None, not a slope of one: until then it is plain training to the last bit.
        self.of = None if level is None else "batch"

    def outcome(self) -> dict[str, Any]:
        first = self.decisions[0] if self.decisions else {"step": None, "b": None}
        common = {"pairs": self.pairs, "direction": self.direction}
        return {"step": first["step"], "b": first["b"], **common, "decisions": self.decisions}

    def state_dict(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "sign": self._watch.sign,
            "decisions": self.decisions,
            "losses": self._losses,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._level_to(state["level"])
        self._watch.sign = state["sign"]
        self.decisions = list(state["decisions"])
        self._losses = state["losses"]
