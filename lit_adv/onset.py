"""Onset: when a method attacks, and how hard, by the count of optimizer steps."""

from typing_extensions import TypedDict

from lit_adv.ranges import whole


class Timing(TypedDict, total=False):
    """Options of every method that does more than plain fine-tuning."""

    start_step: int
    every_n_steps: int
    warmup_steps: int


class Options(Timing, total=False):
    """Options of every method that passes over a batch several times."""

    same_dropout: bool


class Onset:
    """Attacks at steps `start_step + k * every_n_steps`; their strength rises to 1 at first.

    Args:
        start_step: optimizer steps of plain fine-tuning before the first attack.
        every_n_steps: attack at every n-th step; the others are plain fine-tuning.
        warmup_steps: over so many steps after the start all sizes (radius, step, noise) rise
            linearly to their own; 0 = at once.
        group: whose options these are, for messages.

    Raises:
        ValueError: one of them lies outside its range.
    """

    def __init__(
        self,
        start_step: int = 0,
        every_n_steps: int = 1,
        warmup_steps: int = 0,
        group: str = "method",
    ) -> None:
        self.start_step = whole(0, f"{group}.start_step", start_step)
        self.every_n_steps = whole(1, f"{group}.every_n_steps", every_n_steps)
        self.warmup_steps = whole(0, f"{group}.warmup_steps", warmup_steps)

    def attacks(self, step: int) -> bool:
        """Whether optimizer step number `step` (from 0) attacks.

        >>> onset = Onset(start_step=4, every_n_steps=3)
        >>> [step for step in range(12) if onset.attacks(step)]
        [4, 7, 10]
        """
        since = step - self.start_step
        return since >= 0 and since % self.every_n_steps == 0

    def strength(self, step: int) -> float:
        """Share of all sizes at optimizer step number `step` (from 0), above 0 and at most 1.

        >>> onset = Onset(start_step=4, warmup_steps=4)
        >>> [onset.strength(step) for step in (4, 5, 6, 7, 8)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
        """
        since = step - self.start_step + 1
        return min(1.0, since / self.warmup_steps) if self.warmup_steps else 1.0
