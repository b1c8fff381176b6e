"""One training, five ways: this library's module, an adopted one, a bare loop, Fabric, a Trainer
of transformers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adoption.theirs import (
    Case,
    by_adoption,
    by_fabric,
    by_hand,
    by_huggingface,
    by_this_library,
    in_double,
    losses_of,
)
from testbed import METHODS, batches, same

from lit_adv.flood.fixed import Fixed
from lit_adv.flood.individual import Individual
from lit_adv.masks.child_f import ChildF
from lit_adv.proximal.mbpp import MBPP
from lit_adv.proximal.vbpp import VBPP
from lit_adv.updates.alternate import Alternate
from lit_adv.updates.asam import ASAM
from lit_adv.updates.awp import AWP
from lit_adv.updates.backstitch import Backstitch
from lit_adv.updates.gradient_penalty import GradientPenalty
from lit_adv.updates.sam import SAM

# InfoBERT trains weights of its own, which nobody else's optimizer has.
CASES = {name: Case(name, dropout=0.2) for name in [*METHODS, "free_at"] if name != "infobert"}
CASES["llr"] = Case("llr", dropout=0.2, losses=losses_of)

# Made anew for each training: they remember.
PIECES: dict[str, Callable[[], dict[str, Any]]] = {
    "flood": lambda: {"flood": Fixed(0.6)},
    "flood_each": lambda: {"flood": Individual(0.6)},
    "sam": lambda: {"update": SAM(0.3)},
    "asam": lambda: {"update": ASAM(0.3)},
    "awp": lambda: {"update": AWP(0.05, step_size=0.1)},
    "penalty": lambda: {"update": GradientPenalty(0.1, radius=0.01)},
    "exact_penalty": lambda: {"update": GradientPenalty(0.1, form="exact")},
    "backstitch": lambda: {"update": Backstitch(0.3)},
    "alternate": lambda: {"update": Alternate(0.5)},
    "child_f": lambda: {"mask": ChildF(0.3)},
    "mbpp": lambda: {"proximal": MBPP(1.0, beta=0.5)},
    "vbpp": lambda: {"proximal": VBPP(1.0)},
}
for name, pieces in PIECES.items():
    method = "finetune" if name in ("exact_penalty", "alternate") else "fgm"
    CASES[name] = Case(method, pieces, losses=losses_of if name == "flood_each" else None)
for name in ("finetune", "fgm", "freelb", "smart", "vat"):
    # Two batches, then one that ends the epoch; a flood of the whole effective batch.
    CASES[f"{name}_parts"] = Case(name, PIECES["flood"], parts=2)
CASES["sam_parts"] = Case("freelb", PIECES["sam"], parts=2)


@pytest.mark.parametrize("name", CASES)
def test_each_way_ends_in_the_same_weights_to_the_last_bit(name: str, tmp_path: Path):
    case, data = CASES[name], batches(3)
    with in_double():
        reference = by_this_library(case, data)
        for way in (by_adoption, by_hand, by_fabric):
            same(way(case, data), reference)
        same(by_huggingface(case, data, tmp_path), reference)


@pytest.mark.parametrize("name", ["fgm", "pgd_b", "free_at", "smart", "sam", "awp", "flood_parts"])
def test_an_adopted_module_rounds_as_this_library_does_in_half_precision(name: str):
    """Weights that move within a step are cast anew, frozen ones as those that train."""
    case = Case("fgm", PIECES["flood"], parts=2) if name == "flood_parts" else CASES[name]
    options: dict[str, Any] = {"precision": "bf16-mixed", "epochs": 2}
    reference = by_this_library(case, batches(3), **options)
    same(by_adoption(case, batches(3), max_epochs=2, precision="bf16-mixed"), reference)
