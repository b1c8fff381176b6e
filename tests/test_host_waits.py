"""Within a step the host never asks a device for a value."""

import traceback
from typing import Any

import pytest
import torch
from testbed import FREE, METHODS, Recorder, batches, bert, classify, fit, sgd
from torch.utils._python_dispatch import TorchDispatchMode

from lit_adv.flood.fixed import Fixed
from lit_adv.flood.individual import Individual
from lit_adv.masks.child_d import ChildD
from lit_adv.masks.child_f import ChildF
from lit_adv.proximal.mbpp import MBPP
from lit_adv.proximal.vbpp import VBPP
from lit_adv.tasks.task import Batch
from lit_adv.updates.alternate import Alternate
from lit_adv.updates.asam import ASAM
from lit_adv.updates.awp import AWP
from lit_adv.updates.backstitch import Backstitch
from lit_adv.updates.gradient_penalty import GradientPenalty
from lit_adv.updates.sam import SAM

# A value on the host (`item`, `if tensor:`), or a size that depends on values.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "is_nonzero", "equal"}


class Asked(TorchDispatchMode):
    """Notes every operation that makes the host wait."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        # Rows are picked by truth values, of which somebody has to count those that hold.
        picked = args[1] if name.startswith("index") and len(args) > 1 else ()
        picks = isinstance(picked, list | tuple) and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in picked
        )
        if (name in WAITING or picks) and not _in_transformers():
            self.operations.append(name)
        return func(*args, **(kwargs or {}))


def _in_transformers() -> bool:
    # Its attention asks in every pass whether there is any padding at all; compiled, it does not.
    return any(frame.filename.endswith("masking_utils.py") for frame in traceback.extract_stack())


def test_a_value_that_is_asked_for_is_noticed():
    for ask in (
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x[:, (x[0] > 0).int().argmax()],
        lambda x: int(x.argmax()),
    ):
        with Asked() as asked:
            ask(torch.ones(2, 2))
        assert asked.operations


def watched(module: Recorder) -> list[str]:
    """What three steps ask for, with all that belongs to a step: passes, looks, optimizer."""
    asked = Asked()

    class Watched(type(module)):
        def training_step(self, batch: Batch, batch_idx: int) -> None:
            if self.again:  # inside the first look's
                return super().training_step(batch, batch_idx)
            with asked:
                return super().training_step(batch, batch_idx)

    module.__class__ = Watched
    run = fit(module, batches(3))
    assert run.trainer.global_step > 0
    return asked.operations


@pytest.mark.parametrize("name", [*METHODS, "free_at"])
def test_no_method_waits(name: str):
    method = FREE if name == "free_at" else METHODS[name]
    assert watched(method(classify(bert(dropout=0.1)), sgd(gradient_clip_val=1.0))) == []


@pytest.mark.parametrize(
    "parts",
    [
        {"update": SAM()},
        {"update": ASAM()},
        {"update": AWP()},
        {"update": Backstitch()},
        {"update": Alternate()},
        {"update": GradientPenalty()},
        {"update": GradientPenalty(form="exact")},
        {"flood": Fixed(0.69)},
        {"flood": Individual(0.69)},
        {"mask": ChildF()},
        {"mask": ChildD()},
        {"proximal": MBPP()},
        {"proximal": VBPP()},
        {"accumulate_grad_batches": 2, "flood": Fixed(0.69), "proximal": MBPP()},
    ],
)
def test_nothing_between_gradient_and_step_waits(parts: dict[str, Any]):
    exact = isinstance(parts.get("update"), GradientPenalty) and parts["update"].form == "exact"
    name = "finetune" if exact else "freelb"
    assert watched(METHODS[name](classify(bert(dropout=0.1)), sgd(**parts))) == []
