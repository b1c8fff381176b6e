"""Settings of attacks that are not a recipe's: which examples, how many at once, how precisely."""

from dataclasses import dataclass
from typing import Literal

from lit_adv.ranges import one_of, whole


@dataclass(kw_only=True)
class Settings:
    """How attacks are run.

    Args:
        n: examples, a seeded, shuffled sample in which every class has its share.
        split: they are taken from: test or validation.
        seed: of the sample and of random choices.
        calibrate: attack also the victim at the temperature that fits the validation split.
        concurrency: attacks at once.
        batch_tokens: most tokens of a batch, with padding; None = 1024 on a processor, whose caches
            larger ones leave, 32768 elsewhere.
        precision: of the victim's and the encoder's answers: `auto` (bfloat16 where the device has
            it), `bf16` or `32`; that an attack has won is always checked in float32.
        max_length: longest text, in tokens; None = the data's, at most what the network can take.

    Raises:
        ValueError: a value out of its range.
    """

    n: int = 1000
    split: Literal["test", "validation"] = "test"
    seed: int = 0
    calibrate: bool = True
    concurrency: int = 256
    batch_tokens: int | None = None
    precision: Literal["auto", "bf16", "32"] = "auto"
    max_length: int | None = None

    def __post_init__(self) -> None:
        for name in ("n", "concurrency", "batch_tokens", "max_length"):
            if getattr(self, name) is not None:
                whole(1, f"attack.{name}", getattr(self, name))
        whole(0, "attack.seed", self.seed)
        one_of(("test", "validation"), "attack.split", self.split)
