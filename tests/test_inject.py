"""Perturbations reach the loss where they should, nothing else moves, and all is put back."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BartConfig,
    BartForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForSequenceClassification,
)

from lit_adv import inject, regions, standstill
from lit_adv.random_state import RandomState

exactly = partial(torch.testing.assert_close, rtol=0, atol=0, equal_nan=False)

SIZES: dict[str, Any] = {"vocab_size": 40, "num_labels": 3}
BERT: dict[str, Any] = SIZES | {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 20,
}
DISTIL: dict[str, Any] = {"dim": 8, "n_layers": 2, "n_heads": 2, "hidden_dim": 12}
SPECIAL: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MODERN: dict[str, Any] = BERT | SPECIAL | {"cls_token_id": 1, "sep_token_id": 2}
GPT2: dict[str, Any] = SIZES | SPECIAL | {"n_embd": 8, "n_layer": 2, "n_head": 2}
T5: dict[str, Any] = SIZES | {
    "d_model": 8,
    "d_kv": 4,
    "d_ff": 12,
    "num_layers": 2,
    "num_heads": 2,
    "decoder_start_token_id": 0,
    "eos_token_id": 3,
}
BART: dict[str, Any] = SIZES | {
    "d_model": 8,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 12,
    "decoder_ffn_dim": 12,
    "max_position_embeddings": 20,
    "eos_token_id": 3,
}

ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "bert": lambda: BertForSequenceClassification(BertConfig(**BERT)),
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**BERT)),
    "distilbert": lambda: DistilBertForSequenceClassification(DistilBertConfig(**SIZES, **DISTIL)),
    "electra": lambda: ElectraForSequenceClassification(ElectraConfig(embedding_size=6, **BERT)),
    "albert": lambda: AlbertForSequenceClassification(AlbertConfig(embedding_size=6, **BERT)),
    "modernbert": lambda: ModernBertForSequenceClassification(ModernBertConfig(**MODERN)),
    "gpt2": lambda: GPT2ForSequenceClassification(GPT2Config(**GPT2)),
}
ENCODER_DECODERS: dict[str, Callable[[], nn.Module]] = {
    "t5": lambda: T5ForSequenceClassification(T5Config(**T5)),
    "bart": lambda: BartForSequenceClassification(BartConfig(**BART)),
}
BUILD = ENCODERS | ENCODER_DECODERS

EOS = 3


def _network(name: str) -> Any:
    """Random weights, in float64 and evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = BUILD[name]().double().eval()
        for weight in network.parameters():
            nn.init.normal_(weight, std=0.4)
    return network


def _ids(network: Any) -> Tensor:
    ids = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 13, 14]])
    if network.config.is_encoder_decoder:
        ids[:, -1] = EOS  # these heads read at the end of the text
    return ids


def _logits(network: Any) -> Tensor:
    ids = _ids(network)
    return network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def _table(network: Any) -> nn.Embedding:
    embeddings = inject.find_embeddings(network)
    assert isinstance(embeddings, nn.Embedding)
    return embeddings


def _delta(network: Any) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    delta = torch.randn(
        2, 5, _table(network).embedding_dim, generator=generator, dtype=torch.float64
    )
    delta[:, -1] = delta[0, -1]  # the same for both ends of text
    return delta


every_network = pytest.mark.parametrize("name", BUILD)


# ---- where ---------------------------------------------------------------------------------------


@every_network
def test_the_embeddings_found_are_the_table_of_the_vocabulary(name: str):
    table = _table(_network(name))
    assert table.num_embeddings == SIZES["vocab_size"]
    assert table.embedding_dim == (6 if name in ("electra", "albert") else 8)


@every_network
def test_perturbing_the_output_is_perturbing_the_rows_of_the_table(name: str):
    network = _network(name)
    table, delta, clean = _table(network), _delta(network), _logits(network)
    with inject.perturbed(table, delta):
        perturbed = _logits(network)
    assert (perturbed != clean).all()

    # Both see ids and rows one to one; a decoder keeps the rows as they were.
    table.weight = nn.Parameter(table.weight.detach().clone())
    table.weight.data[_ids(network)] += delta
    exactly(_logits(network), perturbed)


@every_network
def test_the_gradient_of_the_perturbation_is_that_of_the_rows_of_the_table(name: str):
    network = _network(name)
    table, delta = _table(network), _delta(network).requires_grad_()
    table.weight = nn.Parameter(table.weight.detach().clone())
    with inject.perturbed(table, delta):
        objective = _logits(network).square().sum()
    grad, rows = torch.autograd.grad(objective, (delta, table.weight))

    assert (grad.norm(dim=-1) > 0).all()
    exactly(rows, torch.zeros_like(rows).index_add(0, _ids(network).flatten(), grad.flatten(0, 1)))


@every_network
def test_a_perturbation_of_zero_or_none_changes_no_bit(name: str):
    network = _network(name)
    embeddings, clean = inject.find_embeddings(network), _logits(network)
    for delta in (torch.zeros_like(_delta(network)), None):
        with inject.perturbed(embeddings, delta):
            exactly(_logits(network), clean)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch.compile's own
@pytest.mark.parametrize("training", [True, False])
@every_network
def test_compiled_layers_are_perturbed_alike_pass_for_pass(name: str, training: bool):
    plain, compiled = (_network(name).train(training) for _ in range(2))
    regions.prepare(compiled, compile=True, backend="eager")
    answers = []
    for size in (None, 1.0, 2.0, 0.5, None):
        pair = []
        for network in (plain, compiled):
            delta = None if size is None else (size * _delta(network)).requires_grad_()
            torch.manual_seed(0)
            with inject.perturbed(inject.find_embeddings(network), delta):
                logits = _logits(network)
            inputs = [*network.parameters(), *([] if delta is None else [delta])]
            total = logits.square().sum()
            pair.append((logits, *torch.autograd.grad(total, inputs, materialize_grads=True)))
        torch.testing.assert_close(pair[1], pair[0], rtol=1e-12, atol=1e-12)
        answers.append(pair[1][0])
    assert all((answers[0] != moved).all() for moved in answers[1:4])
    exactly(answers[4], answers[0])


@pytest.mark.parametrize("name", [name for name in BUILD if name != "albert"])
def test_recomputed_layers_have_the_same_gradients(name: str):
    kept, recomputed = (_network(name).train() for _ in range(2))
    regions.prepare(recomputed, gradient_checkpointing=True)
    grads = []
    for network in (kept, recomputed):
        delta = _delta(network).requires_grad_()
        torch.manual_seed(0)
        with (
            inject.perturbed(inject.find_embeddings(network), delta),
            standstill.frozen(network),
        ):
            grads.append(torch.autograd.grad(_logits(network).square().sum(), delta)[0])
        torch.manual_seed(0)
        with inject.perturbed(inject.find_embeddings(network), delta):
            total = _logits(network).square().sum()
        inputs = [*network.parameters(), delta]
        grads.append(torch.autograd.grad(total, inputs, materialize_grads=True))
    exactly(grads[2:], grads[:2])
    assert (grads[0].norm(dim=-1) > 0).all()


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_the_decoders_embeddings_stay_clean(name: str):
    network = _network(name)
    outputs: dict[str, list[Tensor]] = {"encoder": [], "decoder": []}

    def logits(delta: Tensor | None) -> Tensor:
        with inject.perturbed(inject.find_embeddings(network), delta):
            handles = [
                side.get_input_embeddings().register_forward_hook(
                    lambda module, args, output, name=name: outputs[name].append(output)
                )
                for name, side in (
                    ("encoder", network.get_encoder()),
                    ("decoder", network.get_decoder()),
                )
            ]
            result = _logits(network)
        for handle in handles:
            handle.remove()
        return result

    delta = _delta(network)
    clean, moved = logits(None), logits(delta)
    encoder_clean, encoder_moved = outputs["encoder"]
    decoder_clean, decoder_moved = outputs["decoder"]
    exactly(encoder_moved, encoder_clean + delta)
    exactly(decoder_moved, decoder_clean)
    assert (clean != moved).all()


class _TwoCalls(nn.Module):
    """A table that serves an encoder first and a decoder afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Embedding(7, 3)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        return self.shared(ids), self.shared(ids)


def test_only_the_first_call_of_a_shared_table_is_perturbed():
    network, ids, delta = _TwoCalls(), torch.tensor([[1, 2]]), torch.ones(1, 2, 3)
    for _ in range(2):  # every block counts anew
        with inject.perturbed(network.shared, delta):
            first, second = network(ids)
        exactly(first, network.shared(ids) + 1)
        exactly(second, network.shared(ids))


def test_the_place_to_perturb_can_be_named():
    network = _network("bert")
    named = partial(inject.find_embeddings, network)
    assert named("bert.embeddings.word_embeddings") is named()

    norm = named("bert.embeddings.LayerNorm")
    seen: list[Tensor] = []
    network.bert.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    delta = _delta(network)
    _logits(network)
    with inject.perturbed(norm, delta):
        _logits(network)
    exactly(seen[1], seen[0] + delta)


def test_a_module_without_a_config_is_perturbed_at_the_named_place():
    network = nn.Sequential(nn.Embedding(7, 3), nn.Linear(3, 2))
    assert inject.find_embeddings(network, "0") is network[0]


def test_an_unknown_place_is_refused_with_the_places_there_are():
    with pytest.raises(ValueError) as error:
        inject.find_embeddings(_network("bert"), "bert.embedings")
    for part in ("model.at=bert.embedings", "bert.embeddings.word_embeddings", "token_type"):
        assert part in str(error.value)


@pytest.mark.parametrize("answer", ["no method", "None", "NotImplementedError"])
def test_a_network_that_does_not_name_its_embeddings_is_refused_with_the_candidates(answer: str):
    network = nn.Sequential(nn.Embedding(7, 3), nn.Linear(3, 2))

    def get_input_embeddings() -> None:
        if answer == "NotImplementedError":
            raise NotImplementedError

    if answer != "no method":
        object.__setattr__(network, "get_input_embeddings", get_input_embeddings)
    with pytest.raises(
        ValueError, match=r"model\.at=null: Sequential .*embedding modules here: 0$"
    ):
        inject.find_embeddings(network)


def test_a_module_that_is_never_called_is_refused():
    unused = nn.Embedding(7, 3)
    with (
        pytest.raises(RuntimeError, match="was not called"),
        inject.perturbed(unused, torch.zeros(1, 2, 3)),
    ):
        pass
    assert not unused._forward_hooks


# ---- how long ------------------------------------------------------------------------------------


@every_network
def test_after_the_block_the_network_is_as_before(name: str):
    network = _network(name)
    embeddings, clean = inject.find_embeddings(network), _logits(network)
    with inject.perturbed(embeddings, _delta(network)):
        assert not torch.equal(_logits(network), clean)
    assert not embeddings._forward_hooks
    exactly(_logits(network), clean)


@pytest.mark.parametrize("called", [False, True])
def test_after_an_error_in_the_block_the_network_is_as_before_and_the_error_is_told(called: bool):
    network = _network("bert")
    embeddings, clean = inject.find_embeddings(network), _logits(network)
    with pytest.raises(KeyError, match="mine"), inject.perturbed(embeddings, _delta(network)):
        if called:
            _logits(network)
        raise KeyError("mine")
    assert not embeddings._forward_hooks
    exactly(_logits(network), clean)


def test_foreign_hooks_survive_the_block():
    embeddings, calls = nn.Embedding(7, 3), []
    embeddings.register_forward_hook(lambda *args: calls.append(1))
    with inject.perturbed(embeddings, torch.ones(1, 2, 3)):
        embeddings(torch.tensor([[1, 2]]))
    embeddings(torch.tensor([[1, 2]]))
    assert len(calls) == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_network_stays_so_and_the_gradient_comes_back_in_float32(
    dtype: torch.dtype,
):
    embeddings = nn.Embedding(7, 3, dtype=dtype)
    delta = torch.full((1, 2, 3), 0.5, requires_grad=True)
    ids = torch.tensor([[1, 2]])
    with inject.perturbed(embeddings, delta):
        output = embeddings(ids)
    assert output.dtype == dtype
    exactly(output, embeddings(ids) + delta.to(dtype))
    (grad,) = torch.autograd.grad(output.sum(), delta)
    exactly(grad, torch.ones(1, 2, 3))


# ---- what stands still ---------------------------------------------------------------------------


def _normed() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.2), nn.Linear(4, 2))


def _points(seed: int = 0) -> Tensor:
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("failing", [False, True])
def test_frozen_weights_train_again_afterwards_and_those_frozen_before_do_not(failing: bool):
    network = _normed()
    network[0].requires_grad_(False)
    before = [weight.requires_grad for weight in network.parameters()]
    try:
        with standstill.frozen(network):
            assert not any(weight.requires_grad for weight in network.parameters())
            if failing:
                raise KeyError
    except KeyError:
        pass
    assert [weight.requires_grad for weight in network.parameters()] == before


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_statistics_and_counts_stand_still(failing: bool, training: bool):
    network = _normed().train(training)
    network(_points(1))
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    assert set(before) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    try:
        with standstill.frozen(network):
            network(_points(2))
            network(_points(3))
            if failing:
                raise KeyError
    except KeyError:
        pass
    for name, buffer in network.named_buffers():
        exactly(buffer, before[name])

    network(_points(4))
    mean = network.get_buffer("1.running_mean")
    assert training is not torch.equal(before["1.running_mean"], mean)


@pytest.mark.parametrize("affine", [False, True])
def test_batch_norm_without_statistics_is_let_be(affine: bool):
    network = nn.Sequential(nn.BatchNorm1d(3, affine=affine, track_running_stats=False))
    with standstill.frozen(network):
        network(_points())
    assert not list(network.buffers())


@pytest.mark.parametrize("inside", [True, False])
def test_the_gradient_of_the_input_is_the_same_as_without_freezing(inside: bool):
    """Also when it is asked for after the block, from a graph that was built in it."""
    network = _normed()
    random_state = RandomState(torch.device("cpu"))
    points = _points().requires_grad_()
    (expected,) = torch.autograd.grad(network(points).square().sum(), points)
    assert expected.count_nonzero() > 0

    random_state.rewind()
    with ExitStack() as block:
        block.enter_context(standstill.frozen(network))
        value = network(points).square().sum()
        if not inside:
            block.close()
        (grad,) = torch.autograd.grad(value, points)
    exactly(grad, expected)


def test_gradients_gathered_so_far_stay_the_same_objects_with_the_same_values():
    network = _normed()
    network[3].requires_grad_(False)
    network(_points()).sum().backward()
    network.get_parameter("0.bias").grad = None
    before = [weight.grad for weight in network.parameters()]
    values = [None if grad is None else grad.clone() for grad in before]

    points = _points(1).requires_grad_()
    with standstill.frozen(network):
        network(points).square().sum().backward()
    assert points.grad is not None
    for weight, grad, value in zip(network.parameters(), before, values, strict=True):
        assert weight.grad is grad
        if grad is not None and value is not None:
            exactly(grad, value)


def test_frozen_changes_no_weight_no_mode_and_no_random_stream():
    network = _normed()
    network[2].eval()
    weights = [weight.clone() for weight in network.parameters()]
    modes = [module.training for module in network.modules()]
    stream = torch.get_rng_state()
    with standstill.frozen(network):
        assert [module.training for module in network.modules()] == modes
        network(_points())
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), stream)
    for weight, before in zip(network.parameters(), weights, strict=True):
        exactly(weight, before)


def test_frozen_blocks_nest():
    network = _normed()
    with standstill.frozen(network):
        with standstill.frozen(network):
            network(_points())
        assert not any(weight.requires_grad for weight in network.parameters())
    assert all(weight.requires_grad for weight in network.parameters())
    exactly(network[1].running_mean, torch.zeros(4))


# ---- the same dropout ----------------------------------------------------------------------------


@every_network
def test_rewinding_draws_the_same_dropout_masks(name: str):
    network = _network(name).train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.3
    random_state = RandomState(torch.device("cpu"))
    first, other = _logits(network), _logits(network)
    random_state.rewind()
    exactly(_logits(network), first)
    exactly(_logits(network), other)
    random_state.rewind()  # as often as one likes
    exactly(_logits(network), first)
    assert not torch.equal(first, other)


def test_rewinding_goes_back_to_the_moment_the_state_was_taken():
    torch.rand(3)
    random_state = RandomState(torch.device("cpu"))
    expected = torch.get_rng_state()
    torch.rand(5)
    random_state.rewind()
    assert torch.equal(torch.get_rng_state(), expected)
