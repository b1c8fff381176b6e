"""The valid range of somebody's inputs."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from tasks.subjects import SUBJECTS, batches
from testbed import fit, recording, sgd
from torch.nn import functional as F

from lit_adv.adoption.place import Place
from lit_adv.methods.pgd import PGD

SIZES: dict[str, Any] = {"steps": 3, "step_size": 0.2, "radius": 0.3, "norm": "linf"}


def test_a_loop_of_ones_own_gives_the_gradients_of_the_task_with_that_range():
    task, (batch,) = SUBJECTS["mlp"].build(0.0), batches("mlp", 1)
    net = deepcopy(task.network)
    run = fit(recording(PGD)(task, sgd(), **SIZES), [batch])
    seen: list[torch.Tensor] = []

    def loss(batch: Any) -> torch.Tensor:
        seen.append(batch["pixel_values"].detach())
        return F.cross_entropy(net(batch["pixel_values"]).logits, batch["labels"])

    PGD(**SIZES).on(net, at="input", valid=(0.0, 1.0)).step(loss, batch)
    assert all(bool(((x >= 0) & (x <= 1)).all()) for x in seen)
    assert float((seen[-1] - batch["pixel_values"]).abs().max()) == pytest.approx(0.3)
    for name, weight in net.named_parameters():
        torch.testing.assert_close(weight.grad, run.gradients[0][f"network.{name}"])


def test_a_range_is_for_inputs_and_for_those_that_lie_in_it():
    task, (batch,) = SUBJECTS["mlp"].build(0.0), batches("mlp", 1)
    with pytest.raises(ValueError, match=r"valid=\(0, 1\): is for inputs; set at=input"):
        Place(task.network, "layers.0", valid=(0, 1))
    method = PGD(**SIZES).on(task.network, at="input", valid=(0.0, 0.5))
    with pytest.raises(ValueError, match=r"valid=\(0\.0, 0\.5\): a batch has numbers from 0 to 1"):
        method.step(lambda b: task.network(b["pixel_values"]).logits.sum(), batch)
