"""Layers are found, listened to and stopped at; weights and statistics stand still."""

from functools import partial

import pytest
import torch
from testbed import MeanPool, batches, bert
from torch import Tensor, nn

from lit_adv import inject, layers, standstill

exactly = partial(torch.testing.assert_close, rtol=0, atol=0)


def _points(seed: int = 0) -> Tensor:
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(seed))


def _chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))


# ---- which layer ---------------------------------------------------------------------------------


def test_without_a_name_it_is_the_first_of_the_stacked_layers():
    network = bert(layers=3)
    assert layers.find_layer(network) is network.bert.encoder.layer[0]


def test_an_empty_stack_is_none():
    stack = nn.ModuleList([nn.Linear(3, 2)])
    assert layers.find_layer(nn.Sequential(nn.ModuleList(), stack)) is stack[0]


def test_a_layer_can_be_named():
    network = bert(layers=3)
    assert layers.find_layer(network, "bert.encoder.layer.1") is network.bert.encoder.layer[1]


def test_a_layer_that_is_not_there_is_refused_with_some_that_are():
    with pytest.raises(ValueError, match=r"method\.split=bert\.layer: no such.*bert\.embeddings"):
        layers.find_layer(bert(), "bert.layer")


def test_without_a_stack_a_name_is_asked_for():
    with pytest.raises(ValueError, match=r"method\.split=null: MeanPool has no stack of layers"):
        layers.find_layer(MeanPool())


# ---- listening and stopping ----------------------------------------------------------------------


def test_all_answers_of_a_module_are_kept_in_their_order_and_only_within_the_block():
    network, one, two = _chain(), _points(1), _points(2)
    with layers.captured(network[0]) as answers:
        network(one)
        network(two)
    network(one)
    exactly(answers, [network[0](one), network[0](two)])
    assert not network[0]._forward_hooks


def test_what_is_captured_belongs_to_the_graph():
    network = _chain().double()
    with layers.captured(network[2]) as answers:
        total = network(_points().double()).square().sum()
    grad = torch.autograd.grad(total, answers[0])
    hidden = answers[0].detach().requires_grad_()
    exactly(grad, torch.autograd.grad(network[3](hidden).square().sum(), hidden))


def test_nobody_listens_after_an_error():
    network = _chain()
    with pytest.raises(KeyError), layers.captured(network[2]):
        raise KeyError
    assert not network[2]._forward_hooks


def test_a_call_ends_at_the_module_and_the_rest_never_runs():
    network, points, ran = _chain(), _points().requires_grad_(), []
    for name, module in network.named_children():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    answer = layers.up_to(network, network[1], lambda: network(points))
    assert ran == ["0", "1"]  # its own hooks run first
    expected = network[1](network[0](points))
    exactly(answer, expected)
    exactly(
        torch.autograd.grad(answer.square().sum(), points),
        torch.autograd.grad(expected.square().sum(), points),
    )
    assert len(network[1]._forward_hooks) == 1


def test_a_call_ends_at_the_first_of_several_calls_of_a_module():
    layer, points = nn.Linear(3, 3), _points()
    network = nn.Sequential(layer, nn.Tanh(), layer)
    exactly(layers.up_to(network, layer, lambda: network(points)), layer(points))


def test_a_bert_answers_as_before_after_a_call_that_ended_early():
    network, (batch,) = bert(layers=2), batches()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    stack = network.bert.encoder.layer
    before = network(**inputs, output_hidden_states=True)
    hidden = layers.up_to(network, stack[0], lambda: network(**inputs))
    exactly(hidden if isinstance(hidden, Tensor) else hidden[0], before.hidden_states[1])
    after = network(**inputs, output_hidden_states=True)
    exactly(after.logits, before.logits)
    exactly(after.hidden_states, before.hidden_states)


@pytest.mark.parametrize("name", ["embeddings", "encoder.layer.0", "encoder", "pooler"])
def test_a_cut_network_answers_as_before_and_its_gradient_ends_at_the_cut(name: str):
    network, (batch,) = bert(layers=2), batches()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    whole = network(**inputs).logits
    with layers.cut(network.bert.get_submodule(name)) as answers:
        logits = network(**inputs).logits
        network(**inputs)  # only the first call is cut
    exactly(logits, whole)
    ((answer, leaf),) = answers
    exactly(answer, leaf)
    logits.square().sum().backward()
    assert leaf.grad is not None and network.get_input_embeddings().weight.grad is None
    answer.backward(leaf.grad)
    grads = {n: weight.grad for n, weight in network.named_parameters()}
    expected = torch.autograd.grad(whole.square().sum(), list(network.parameters()))
    torch.testing.assert_close(list(grads.values()), list(expected), rtol=1e-12, atol=1e-14)


def test_a_module_that_the_call_does_not_reach_is_told_and_so_are_other_errors():
    network, foreign = _chain(), nn.Linear(3, 2)
    with pytest.raises(RuntimeError, match="was not called by the forward of Sequential"):
        layers.up_to(network, foreign, lambda: network(_points()))
    with pytest.raises(ZeroDivisionError):
        layers.up_to(network, network[3], lambda: 1 // 0)
    assert not foreign._forward_hooks and not network[3]._forward_hooks


# ---- standing still ------------------------------------------------------------------------------


def _trains(network: nn.Module) -> list[bool]:
    return [weight.requires_grad for weight in network.parameters()]


def test_the_weights_given_stand_still_and_the_others_train():
    network = _chain()
    network[0].bias.requires_grad_(False)
    before = _trains(network)
    with standstill.still(iter(network[0].parameters())):
        loss = network(_points()).square().sum()
    assert _trains(network) == before
    loss.backward()
    trained = {name for name, weight in network.named_parameters() if weight.grad is not None}
    assert trained == {"1.weight", "1.bias", "3.weight", "3.bias"}


def _normed() -> tuple[nn.Sequential, nn.BatchNorm1d]:
    norm = nn.BatchNorm1d(4)
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), norm, nn.Linear(4, 2)), norm


def _statistics(norm: nn.BatchNorm1d) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in norm.named_buffers()}


def test_statistics_are_used_and_neither_they_nor_their_tensors_change():
    (network, norm), (twin, _) = _normed(), _normed()
    buffers, before = dict(norm.named_buffers()), _statistics(norm)
    with standstill.statistics_kept(network):
        answer = network(_points())
    exactly(answer, twin(_points()))  # by the batch's own, as in training
    exactly(_statistics(norm), before)
    assert all(buffer is buffers[name] for name, buffer in norm.named_buffers())
    answer.square().sum().backward()  # the graph may be used after the block
    assert all(weight.grad is not None for weight in network.parameters())


def test_blocks_of_kept_statistics_may_lie_within_each_other():
    network, norm = _normed()
    before = _statistics(norm)
    with standstill.statistics_kept(network):
        network(_points(1))
        with standstill.statistics_kept(network):
            network(_points(2))
        network(_points(3))
    exactly(_statistics(norm), before)
    network(_points(1))
    assert norm.num_batches_tracked == 1
    assert (_statistics(norm)["running_mean"] != before["running_mean"]).all()


def test_in_evaluation_mode_the_running_statistics_are_used():
    network, _ = _normed()
    network(_points(1))
    expected = network.eval()(_points(2))
    with standstill.statistics_kept(network):
        exactly(network(_points(2)), expected)


def test_after_an_error_all_moves_again():
    network, norm = _normed()
    before = _trains(network)
    with (
        pytest.raises(KeyError),
        standstill.still(network.parameters()),
        standstill.statistics_kept(network),
    ):
        network(_points())
        assert not any(_trains(network))
        raise KeyError
    assert _trains(network) == before and norm.num_batches_tracked == 0
    network(_points())
    assert norm.num_batches_tracked == 1


# ---- units ---------------------------------------------------------------------------------------


def test_relative_a_perturbation_is_in_units_of_each_vectors_standard_deviation():
    table, ids = nn.Embedding(7, 5).double(), torch.tensor([[1, 2, 0], [3, 3, 6]])
    with torch.no_grad():
        table.weight[6] = 1.5  # a vector whose coordinates do not vary
    delta = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with inject.perturbed(table, delta.requires_grad_(), relative=True) as outputs:
        answer = table(ids)
    assert outputs[0] is answer
    for b, t in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)):
        vector = table.weight[ids[b, t]].detach()
        unit = ((vector - vector.mean()).square().sum() / 4).sqrt()
        torch.testing.assert_close(answer[b, t], vector + unit * delta[b, t], rtol=0, atol=1e-14)
    exactly(answer[1, 2], table.weight[6])

    to_table, to_delta = torch.autograd.grad(answer.sum(), [table.weight, delta])
    counts = torch.bincount(ids.flatten(), minlength=7).double()
    exactly(to_table, counts.unsqueeze(1).expand(7, 5))  # the unit is a constant
    torch.testing.assert_close(to_delta, table(ids).detach().std(-1, keepdim=True).expand(2, 3, 5))
