"""Which parts make no sense together, said before training."""

from lit_adv.descent import Descent
from lit_adv.updates.alternate import Alternate
from lit_adv.updates.backstitch import Backstitch
from lit_adv.updates.gradient_penalty import GradientPenalty
from lit_adv.updates.plain import Plain


def check(method: type, descent: Descent) -> None:
    """Refuse a mix of method and descent that would not do what its parts say.

    Args:
        method: its class, with `passes`.
        descent: how the weights descend.

    Raises:
        ValueError: there is no such mix; the line says why.
    """
    update, passes, name = descent.update, getattr(method, "passes", "several"), method.__name__
    kind = type(update).__name__
    if passes == "own steps":
        if not isinstance(update, Plain):
            raise ValueError(
                f"update={kind}: {name} steps several times per batch, each time by the gradient "
                "that moved its perturbation too; another look between them would belong to "
                "neither; choose update=plain"
            )
        if descent.accumulate_grad_batches > 1:
            raise ValueError(
                f"trainer.accumulate_grad_batches={descent.accumulate_grad_batches}: {name} steps "
                "several times per batch, so a batch cannot be one of several; set 1"
            )
    if isinstance(update, Alternate) and descent.flood.of is not None:
        raise ValueError(
            f"flood={type(descent.flood).__name__}: with update=alternate both would turn steps "
            "uphill, and two turns make a descent; choose one of them"
        )
    if isinstance(update, GradientPenalty) and update.form == "exact":
        if passes != "one":
            raise ValueError(
                f"update.form=exact: {name} passes over a batch more than once, or differentiates "
                "twice itself; choose update.form=difference"
            )
        if descent.accumulate_grad_batches > 1:
            raise ValueError(
                f"trainer.accumulate_grad_batches={descent.accumulate_grad_batches}: "
                "update.form=exact would keep the graphs of all these batches; choose "
                "update.form=difference"
            )


def check_precision(descent: Descent, precision: str) -> None:
    """Refuse what a scaled loss would make wrong.

    Raises:
        ValueError: the update needs the size of the gradient, which float16 training scales.
    """
    update = descent.update
    by_size = isinstance(update, Backstitch) or (
        isinstance(update, GradientPenalty) and (update.of == "square" or update.form == "exact")
    )
    if precision == "16-mixed" and by_size:
        raise ValueError(
            f"trainer.precision={precision}: update={type(update).__name__} needs the gradient "
            "without the loss scale of float16; choose bf16-mixed"
        )
