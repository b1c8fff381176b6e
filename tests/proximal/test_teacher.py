"""Reference weights: what is copied, what they answer, and that the live network feels nothing."""

from copy import deepcopy
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
)

from lit_adv.proximal.teacher import Teacher
from lit_adv.tasks.classification import Classification

exactly = partial(torch.testing.assert_close, rtol=0, atol=0, equal_nan=False)

SPECIAL: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def _bert() -> BertForSequenceClassification:
    config = BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=9,
        hidden_dropout_prob=0.3,
    )
    return BertForSequenceClassification(config)


def _half_frozen_bert() -> nn.Module:
    network = _bert()
    network.bert.embeddings.requires_grad_(False)
    return network


def _gpt2_with_its_table_as_the_head() -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=2, n_head=2, **SPECIAL))


def _bart_with_three_names_for_its_table() -> nn.Module:
    config = BartConfig(
        vocab_size=20,
        d_model=8,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=12,
        decoder_ffn_dim=12,
        max_position_embeddings=9,
        **SPECIAL,
    )
    return BartForSequenceClassification(config)


class _Normed(nn.Module):
    """Batch norm, dropout, and a table that is its own output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 4)
        self.norm = nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(4, 20, bias=False)
        self.head.weight = self.table.weight

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        pooled = (self.table(input_ids) * attention_mask[..., None]).mean(1)
        return SimpleNamespace(logits=self.head(self.dropout(self.norm(pooled))))


NETWORKS = [
    _bert,
    _half_frozen_bert,
    _gpt2_with_its_table_as_the_head,
    _bart_with_three_names_for_its_table,
    _Normed,
]
every_network = pytest.mark.parametrize("build", NETWORKS)

IDS = torch.tensor([[5, 6, 7, 8, 2], [9, 10, 11, 12, 2], [13, 14, 15, 5, 2]])
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}


def _task(build: Any) -> Classification:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        task = Classification(build(), num_labels=2)
        for weight in task.parameters():
            nn.init.normal_(weight, std=0.4)
    return task


def _move(task: nn.Module, seed: int = 1) -> None:
    """What an optimizer does: every weight that trains changes in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in task.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)


# ---- what is copied ------------------------------------------------------------------------------


@every_network
def test_the_weights_that_train_are_copied_once_and_no_others(build: Any):
    task = _task(build)
    teacher = Teacher(task)
    trained = {id(weight): weight for weight in task.parameters() if weight.requires_grad}
    assert len(teacher.weights) == len(trained)
    copies = sum(weight.numel() for weight in teacher.weights.values())
    assert copies == sum(weight.numel() for weight in trained.values())


def test_frozen_and_tied_weights_are_not_copied():
    frozen = {name for name in Teacher(_task(_half_frozen_bert)).weights if "embeddings" in name}
    assert not frozen
    tied = {name for name in Teacher(_task(_Normed)).weights if name.split(".")[1] in "table head"}
    assert tied == {"network.table.weight"}
    gpt2 = Teacher(_task(_gpt2_with_its_table_as_the_head)).weights
    assert sum(weight.shape == (20, 8) for weight in gpt2.values()) == 1
    bart = Teacher(_task(_bart_with_three_names_for_its_table)).weights
    assert sum(weight.shape == (20, 8) for weight in bart.values()) == 1


@every_network
def test_the_copies_are_the_weights_as_they_were_and_share_no_memory(build: Any):
    task = _task(build)
    teacher = Teacher(task)
    before = {name: weight.detach().clone() for name, weight in task.named_parameters()}
    _move(task)
    for name, weight in teacher.weights.items():
        exactly(weight, before[name])
        assert not torch.equal(weight, dict(task.named_parameters())[name])


@pytest.mark.parametrize(
    ("dtype", "copied"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_the_copies_are_in_float32_at_least(dtype: torch.dtype, copied: torch.dtype):
    task = _task(_bert).to(dtype)
    teacher = Teacher(task)
    assert {weight.dtype for weight in teacher.weights.values()} == {copied}
    assert teacher.logits(task, BATCH).dtype == dtype


# ---- what it answers -----------------------------------------------------------------------------


@every_network
def test_the_reference_answers_as_a_copy_of_the_task_in_evaluation_mode(build: Any):
    task = _task(build)
    teacher, copy = Teacher(task), deepcopy(task).eval()
    expected = copy(BATCH).detach()
    exactly(teacher.logits(task, BATCH), expected)

    _move(task)
    exactly(teacher.logits(task, BATCH), expected)
    assert not torch.equal(deepcopy(task).eval()(BATCH), expected)


def test_batch_statistics_are_those_of_the_live_network():
    task = _task(_Normed)
    teacher, copy = Teacher(task), deepcopy(task)
    _move(task)
    task(BATCH)  # in training mode: moves the statistics
    for buffer, live in zip(copy.buffers(), task.buffers(), strict=True):
        buffer.copy_(live)
    exactly(teacher.logits(task, BATCH), copy.eval()(BATCH).detach())


@every_network
def test_answering_carries_no_graph_and_leaves_no_gradient(build: Any):
    task = _task(build)
    teacher = Teacher(task)
    logits = teacher.logits(task, BATCH)
    assert not logits.requires_grad
    (task(BATCH) * logits).sum().backward()
    for weight in teacher.weights.values():
        assert weight.grad is None
        assert not weight.requires_grad
        assert all(weight is not live for live in task.parameters())


@every_network
def test_answering_changes_no_weight_no_statistic_and_no_random_stream(build: Any):
    task = _task(build)
    teacher = Teacher(task)
    _move(task)
    objects = list(task.parameters())
    before = {name: value.clone() for name, value in task.state_dict().items()}
    stream = torch.get_rng_state()

    teacher.logits(task, BATCH)
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(new is old for new, old in zip(task.parameters(), objects, strict=True))
    exactly(dict(task.state_dict()), before)


@pytest.mark.parametrize("failing", [False, True])
def test_every_module_is_put_back_into_its_own_mode(failing: bool):
    task = _task(_Normed)
    task.get_submodule("network.dropout").eval()
    modes = {name: module.training for name, module in task.named_modules()}
    assert set(modes.values()) == {False, True}
    teacher = Teacher(task)
    if failing:
        with pytest.raises(TypeError):
            teacher.logits(task, {"input_ids": IDS})
    else:
        teacher.logits(task, BATCH)
    assert {name: module.training for name, module in task.named_modules()} == modes


def test_a_task_in_evaluation_mode_stays_so():
    task = _task(_bert).eval()
    Teacher(task).logits(task, BATCH)
    assert not any(module.training for module in task.modules())


# ---- how it follows ------------------------------------------------------------------------------


@every_network
def test_keeping_nothing_copies_exactly(build: Any):
    task = _task(build)
    teacher = Teacher(task)
    _move(task)
    teacher.follow(task, keep=0)
    live = dict(task.named_parameters())
    exactly(teacher.weights, {name: live[name].detach() for name in teacher.weights})

    _move(task)  # and the copy is one
    assert all(not torch.equal(weight, live[name]) for name, weight in teacher.weights.items())


@every_network
def test_keeping_all_changes_no_bit(build: Any):
    task = _task(build)
    teacher = Teacher(task)
    before = {name: weight.clone() for name, weight in teacher.weights.items()}
    _move(task)
    teacher.follow(task, keep=1)
    exactly(teacher.weights, before)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_towards_standing_weights_the_distance_shrinks_geometrically(keep: float):
    task = _task(_bert).double()
    teacher = Teacher(task)
    start = {name: weight.clone() for name, weight in teacher.weights.items()}
    _move(task)
    live = dict(task.named_parameters())
    for t in range(1, 8):
        teacher.follow(task, keep)
        for name, weight in teacher.weights.items():
            goal = live[name].detach()
            expected = goal + keep**t * (start[name] - goal)
            torch.testing.assert_close(weight, expected, rtol=1e-13, atol=1e-14)


def test_after_moving_weights_it_is_their_weighted_sum():
    task, keep = _task(_Normed).double(), 0.7
    teacher, steps = Teacher(task), 6
    past = [{name: weight.clone() for name, weight in teacher.weights.items()}]
    for step in range(steps):
        _move(task, seed=step)
        teacher.follow(task, keep)
        past.append({n: w.detach().clone() for n, w in task.named_parameters()})
    for name, weight in teacher.weights.items():
        expected = keep**steps * past[0][name] + sum(
            (1 - keep) * keep ** (steps - t) * past[t][name] for t in range(1, steps + 1)
        )
        torch.testing.assert_close(weight, expected, rtol=1e-13, atol=1e-14)


def test_following_a_half_precision_network_keeps_what_half_precision_would_round_away():
    task = _task(_bert).bfloat16()
    teacher = Teacher(task)
    start = {name: weight.clone() for name, weight in teacher.weights.items()}
    _move(task)
    live = dict(task.named_parameters())
    for _ in range(3):
        teacher.follow(task, keep=0.999)
    for name, weight in teacher.weights.items():
        goal = live[name].detach().double()
        expected = goal + 0.999**3 * (start[name].double() - goal)
        torch.testing.assert_close(weight.double(), expected, rtol=3e-7, atol=1e-7)
        assert not torch.equal(weight, start[name])


def test_following_gives_the_network_no_gradient_and_changes_none_of_its_weights():
    task = _task(_bert)
    teacher = Teacher(task)
    _move(task)
    before = {name: weight.detach().clone() for name, weight in task.named_parameters()}
    for keep in (0, 0.5, 1):
        teacher.follow(task, keep)
    for name, weight in task.named_parameters():
        exactly(weight.detach(), before[name])
        assert weight.grad is None
        assert weight.requires_grad
