"""A loop of one's own: what a function may look like, and what is said of one that will not do."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from adoption.theirs import in_double, loss_of
from testbed import Tensors, batches, bert, close, same, weights
from torch import Tensor, nn
from torch.optim import SGD

from lit_adv.descent import Descent
from lit_adv.masks.child_f import ChildF
from lit_adv.methods.fgm import FGM
from lit_adv.methods.free_at import FreeAT
from lit_adv.methods.input_gradient_penalty import InputGradientPenalty
from lit_adv.methods.rdrop import RDrop
from lit_adv.updates.alternate import Alternate
from lit_adv.updates.sam import SAM

WORDS = "bert.embeddings.word_embeddings"


def gradient(network: nn.Module) -> dict[str, Tensor]:
    return {k: w.grad.clone() for k, w in network.named_parameters() if w.grad is not None}


def test_functions_with_and_without_the_batch_are_one():
    (batch,) = batches()
    ends = []
    forms: list[Callable[[nn.Module], Callable[..., Tensor]]] = [
        lambda net: lambda: loss_of(net, batch),
        lambda net: lambda given: loss_of(net, given),
        lambda net: lambda given=batch: loss_of(net, given),
    ]
    with in_double():
        for form in forms:
            network = bert()
            FGM(radius=0.5).on(network).step(form(network), batch)
            ends.append(gradient(network))
    same(ends[1], ends[0])
    same(ends[2], ends[0])


@pytest.mark.parametrize(
    "options, says",
    [
        ({"at": "input"}, "at=input: the function gets the perturbed batch; give it an argument"),
        (
            {"at": WORDS, "descent": Descent(update=SAM(0.1)), "accumulate_grad_batches": 2},
            "update=SAM: looks again at the batches of an effective batch, which a function",
        ),
        ({"at": WORDS, "descent": Descent(update=Alternate())}, "update=Alternate: steps by your"),
    ],
)
def test_what_a_function_or_a_loop_cannot_do_is_refused(options: dict[str, Any], says: str):
    network, (batch,) = bert(), batches()
    with pytest.raises(ValueError) as refused, in_double():
        FGM(radius=0.1).on(network, **options).step(lambda: loss_of(network, batch), batch)
    assert str(refused.value).startswith(says)


def test_a_step_that_failed_leaves_nothing_behind():
    (batch,), ends = batches(), []
    for fails in (True, False):
        network = bert()
        with in_double():
            method = FGM(radius=0.5, descent=Descent(update=SAM(0.1))).on(network)
            if fails:
                with pytest.raises(MemoryError):
                    method.step(_fails, batch)
                network.zero_grad()
            method.step(partial(loss_of, network, batch), batch)
        ends.append(gradient(network))
    same(ends[1], ends[0])


def _fails() -> Tensor:
    raise MemoryError


def test_a_penalty_counts_once_whether_or_not_the_batch_is_shown():
    (batch,) = batches(size=6)
    ends = []
    for shown in (True, False):
        network = bert(dropout=0.3)
        torch.manual_seed(0)
        with in_double():
            method = RDrop(alpha=2.0, dropout=None).on(network, logits="classifier")
            method.step(partial(loss_of, network, batch), batch if shown else None)
        ends.append(gradient(network))
    close(ends[1], ends[0])


def test_a_mean_of_shape_one_is_a_mean():
    (batch,) = batches(size=6)
    ends = []
    for shape in ((), (1,)):
        network = bert()
        with in_double():
            method = InputGradientPenalty(epsilon=1.0).on(network)
            method.step(partial(_mean, network, batch, shape), batch)
        ends.append(gradient(network))
    close(ends[1], ends[0])


def _mean(network: nn.Module, batch: Tensors, shape: tuple[int, ...]) -> Tensor:
    return loss_of(network, batch).reshape(shape)


def test_rates_of_a_step_that_was_left_out_are_not_those_of_the_next():
    network, (batch,) = bert(), batches()
    optimizer = SGD(network.parameters(), lr=0.1)
    rates = []
    with in_double():
        descent = Descent(update=Alternate(0.5))
        method = FGM(radius=0.1, descent=descent).on(network, optimizer=optimizer)
        for step in range(5):
            method.step(lambda: loss_of(network, batch), batch)
            rates.append(optimizer.param_groups[0]["lr"])
            if step not in (1, 2):  # as a loss scale does that has overflowed
                optimizer.step()
            optimizer.zero_grad()
    assert rates == pytest.approx([0.1, -0.05, 0.1, -0.05, 0.1])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


def test_a_mask_goes_on_with_the_seed_of_its_checkpoint():
    (batch,) = batches()

    def masked(seed: int, state: dict[str, Any] | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
        network = bert()
        torch.manual_seed(seed)
        method = FGM(radius=0.1, descent=Descent(mask=ChildF(0.5))).on(network)
        if state is not None:
            method.load_state_dict({**state, "steps": 0})
        with in_double():
            method.step(lambda: loss_of(network, batch), batch)
        return gradient(network), method.state_dict()

    first, state = masked(1, None)
    again, _ = masked(2, state)
    other, _ = masked(2, None)
    assert all(torch.equal(first[name] == 0, again[name] == 0) for name in first)
    assert any(not torch.equal(first[name] == 0, other[name] == 0) for name in first)


def test_replays_under_autocast_see_the_weights_as_they_are():
    network, (batch,) = bert().float(), batches()
    optimizer = SGD(network.parameters(), lr=0.5)
    method = FreeAT(replays=4, radius=0.0).on(network, optimizer=optimizer)
    losses: list[float] = []

    def loss() -> Tensor:
        value = loss_of(network, batch)
        losses.append(value.detach().item())
        return value

    with torch.autocast("cpu", torch.bfloat16):
        method.step(loss, batch)
    assert len(set(losses)) == 4


def test_weights_and_images_of_ones_own():
    """A net without words, perturbed at what it is given."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    x, y = torch.rand(5, 2, 2), torch.tensor([0, 1, 2, 0, 1])
    before = weights(net)
    method = FGM(radius=0.1).on(net, at="input")
    loss = method.step(lambda given: F.cross_entropy(net(given[0]), given[1]), (x, y))
    assert loss == F.cross_entropy(net(x), y) and method.logged["loss/adversarial"] > loss
    same(weights(net), before)
