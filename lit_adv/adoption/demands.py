"""Demands: what a method asks of a borrowed loss, and what somebody else's loop cannot give it."""

from lit_adv import sharding
from lit_adv.adoption.borrowed import Borrowed
from lit_adv.finetuner import FineTuner
from lit_adv.masks.child_d import ChildD


def make(method: FineTuner, task: Borrowed) -> None:
    """Refuse a method that needs more than there is; tell the task what this one does not need.

    Raises:
        ValueError: the method or one of its pieces needs more than a loss.
    """
    name, descent = type(method).__name__, method.descent
    flood = type(descent.flood).__name__
    piece = f"proximal={type(descent.proximal).__name__}" if descent.proximal.weight else ""
    if method.perturbs:
        task.place.check()
    if not (method.compares_answers or piece):
        task.logits = None
    elif task.logits is None:
        raise ValueError(
            f"{piece or name}: compares a network's answers, which a loss does not give; say "
            "what they are: logits=, a function from a batch to logits, or the name of the "
            "module whose output they are"
        )
    if method.separates_losses:
        task.separate = name
    elif descent.flood.of == "example":
        task.separate = f"flood={flood}"
    if len(list(method.parameters())) > len(list(task.parameters())):
        raise ValueError(
            f"{name}: trains weights of its own, which your optimizer does not have; build it "
            "from a task, as a LightningModule of this library"
        )
    if descent.flood.callbacks():
        raise ValueError(
            f"flood={flood}: watches a training through Lightning's callbacks of this library's "
            "own modules; give a level: flood=Fixed(b=...)"
        )
    if isinstance(descent.mask, ChildD):
        raise ValueError("mask=ChildD: scores a task's examples before the training; choose ChildF")
    if sharding.dealt_out(task):
        raise ValueError(f"{name}: the weights are sharded; train with DistributedDataParallel")
