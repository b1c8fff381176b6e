"""InfoBERT: its whole objective by hand, with pairs, ranks and critic counted one by one."""

import math
from functools import partial
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
import transformers
from testbed import (
    PERTURBING,
    Floodable,
    Method,
    Tensors,
    answer,
    ascent,
    batches,
    bert,
    classify,
    close,
    derivative,
    fit,
    gradient,
    loss,
    norms,
    recording,
    same,
    sgd,
    weights,
)
from torch import Tensor, nn

from lit_adv.finetuner import FineTuner
from lit_adv.flood.fixed import Fixed
from lit_adv.flood.flood import Flood
from lit_adv.flood.individual import Individual
from lit_adv.flood.none import NoFlood
from lit_adv.methods.infobert import Critic
from lit_adv.methods.infobert import InfoBERT as Method_
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.place import Words
from lit_adv.tasks.task import Batch

ALPHA, BETA, LOW, HIGH = 0.7, 0.3, 0.3, 0.8


class Pairs(FineTuner):
    """Mixed into the method: keeps where the stream of the noise stood at every pass."""

    stood: tuple[Tensor, ...] = ()

    def information(self, *args: Any) -> Tensor:
        self.stood += (self.noise.get_state(),)
        return Method_.information(self, *args)  # pyright: ignore[reportArgumentType]


InfoBERT: Method = partial(
    recording(Method_, Pairs),
    steps=3,
    step_size=0.3,
    radius=0.8,
    init_size=0.4,
    alpha=ALPHA,
    beta=BETA,
    low=LOW,
    high=HIGH,
)


class OfTheCritic(L.Callback):
    """Keeps the critic's gradients."""

    def __init__(self) -> None:
        self.gradients: list[Tensors] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        named = pl_module.critic.named_parameters()
        self.gradients.append({name: weight.grad.clone() for name, weight in named})


def _score(critic: Critic, word: Tensor, sentence: Tensor) -> Tensor:
    """A network of one hidden layer on the word and the sentence side by side."""
    matrix = torch.cat([critic.words.weight, critic.sentences.weight], dim=1)
    hidden = (matrix @ torch.cat([word, sentence]) + critic.words.bias).relu()
    return F.softplus(critic.score.weight @ hidden + critic.score.bias).squeeze()


def _reference_bottleneck(words: Tensor, real: Tensor, state: Tensor) -> Tensor:
    stream = torch.Generator()
    stream.set_state(state)
    chance = real.flatten().double()
    partners = torch.multinomial(chance, chance.numel(), replacement=True, generator=stream)
    flat = words.flatten(0, 1)
    places = real.flatten().nonzero().flatten().tolist()
    assert real.flatten()[partners].all()
    return torch.stack([(flat[i] - flat[partners[i]]).square().sum() / 2 for i in places]).mean()


def _reference_contrast(
    critic: Critic, words: Tensor, sentences: Tensor, real: Tensor, grad: Tensor
) -> Tensor:
    terms = []
    for b in range(len(words)):
        places = sorted(
            real[b].nonzero().flatten().tolist(), key=lambda t: float(grad[b, t].norm())
        )
        count = len(places)
        for t in places[math.ceil(LOW * count) : math.ceil(HIGH * count)]:
            scores = torch.stack([_score(critic, words[b, t], s) for s in sentences])
            terms.append(scores[b] - scores.logsumexp(0) + math.log(len(sentences)))
    return torch.stack(terms).mean()


def _sentences(network: nn.Module, words: Tensor, batch: Batch) -> Tensor:
    encoder = network.get_submodule("bert")
    hidden = encoder(inputs_embeds=words, attention_mask=batch["attention_mask"])
    return hidden.last_hidden_state[:, 0]


@pytest.mark.parametrize("flood", [NoFlood(), Individual(0.7), Fixed(9.0)])
@pytest.mark.parametrize("special", ["perturb", "keep"])
def test_perturbations_and_gradients_are_those_of_the_objective(flood: Flood, special: str):
    """FreeLB plus both terms in every pass; only FreeLB's losses are flooded."""
    network, (batch,), critics = bert(), batches(), OfTheCritic()
    task = Floodable(network)
    task.place = Words(network, special_tokens=special)
    run = fit(InfoBERT(task, sgd(lr=0.0, flood=flood)), [batch], callbacks=[critics])
    module = run.module
    assert isinstance(module, Method_) and isinstance(module, Pairs)
    real, table = task.mask(batch), network.get_input_embeddings()

    assert len(module.deltas) == 3
    total, flooded = torch.zeros(()), torch.zeros(())
    for i, delta in enumerate(module.deltas):
        grad = ascent(lambda d: loss(network, batch, d), delta) * real.unsqueeze(-1)
        if i < 2:
            moved = delta + 0.3 * grad / norms(grad).view(-1, 1, 1)
            size = norms(moved).view(-1, 1, 1)
            close(module.deltas[i + 1], torch.where(size > 0.8, moved * 0.8 / size, moved))
        words = table(batch["input_ids"]) + delta
        sentences = _sentences(network, words, batch)
        contrast = _reference_contrast(module.critic, words, sentences, real, grad)
        bottleneck = _reference_bottleneck(words, real, module.stood[i])
        total = total + (BETA * bottleneck - ALPHA * contrast) / 3
        losses = loss(network, batch, delta)
        below = losses < flood.b if isinstance(flood, Individual) else isinstance(flood, Fixed)
        flooded = flooded + torch.where(torch.as_tensor(below), -losses, losses).mean() / 3

    named = dict(module.critic.named_parameters())
    expected = torch.autograd.grad(total, list(named.values()), retain_graph=True)
    close(run.gradients[0], derivative(flooded + total, network))
    close(critics.gradients[0], dict(zip(named, expected, strict=True)))


# ---- its terms -----------------------------------------------------------------------------------


@pytest.mark.parametrize("flood", [NoFlood(), Individual(0.7), Fixed(9.0)])
def test_without_its_terms_it_is_freelb_batch_after_batch(flood: Flood):
    """Also in what it draws from the stream of the noise."""
    descent, options = sgd(flood=flood), {"step_size": 0.3, "radius": 0.8, "init_size": 0.4}
    info = fit(InfoBERT(Floodable(bert()), descent, alpha=0.0, beta=0.0), batches(3))
    module = PERTURBING["freelb"](Floodable(bert()), descent, steps=3, **options)
    freelb = fit(module, batches(3))
    close(info.module.deltas, freelb.module.deltas)
    close(info.gradients, freelb.gradients)


@pytest.mark.parametrize("term", ["alpha", "beta"])
def test_each_term_is_linear_in_its_weight(term: str):
    off = {"alpha": 0.0, "beta": 0.0}
    none, once, twice = (
        gradient(InfoBERT, bert(), batches(), **{**off, term: weight}) for weight in (0.0, 1.0, 2.0)
    )
    for name, grad in none.items():
        close(twice[name] - grad, 2 * (once[name] - grad))
    assert any((once[name] != none[name]).any() for name in none)


def test_the_critic_learns_to_tell_the_sentences():
    def bound(module: nn.Module) -> float:
        assert isinstance(module, Method_)
        network, (batch,) = module.task.network, batches()
        words = network.get_submodule("bert.embeddings.word_embeddings")(batch["input_ids"])
        grad = ascent(lambda d: loss(network, batch, d), torch.zeros_like(words))
        sentences = _sentences(network, words, batch)
        real = batch["attention_mask"].bool()
        return _reference_contrast(module.critic, words, sentences, real, grad).item()

    options = {"alpha": 1.0, "beta": 0.0, "step_size": 0.0, "init_size": 0.0}
    module = InfoBERT(classify(bert().requires_grad_(False)), sgd(lr=0.5), **options)
    module.double()
    module.task.get_submodule("network.classifier").requires_grad_(True)
    before, low = weights(module), bound(module)
    fit(module, batches() * 30)
    for name, weight in weights(module).items():
        assert torch.equal(weight, before[name]) is (
            "critic" not in name and "classifier" not in name
        )
    assert low < 0.2 < bound(module) <= math.log(4)


def test_between_attacks_the_critic_rests():
    module = InfoBERT(classify(bert()), sgd(), start_step=5)
    assert isinstance(module, Method_)
    before = weights(module.critic.double())
    fit(module, batches(2))
    same(weights(module.critic), before)


@pytest.mark.parametrize("tokens", [1, 2, 5, 10, 31])
@pytest.mark.parametrize("low, high", [(0.0, 1.0), (0.5, 0.9), (0.7, 1.0), (0.45, 0.55)])
def test_all_words_of_the_ranks_are_there_however_long_the_text(
    tokens: int, low: float, high: float, monkeypatch: pytest.MonkeyPatch
):
    """The room for them depends on the longest text, their number on each one's length."""
    counts: list[list[int]] = []
    monkeypatch.setattr(
        "lit_adv.methods.infobert.contrast",
        lambda scores, chosen: counts.append(chosen.sum(1).tolist()) or scores.sum() * 0,
    )
    module = InfoBERT(classify(bert().float()), sgd(), low=low, high=high, beta=0.0)
    assert isinstance(module, Method_)
    lengths = torch.arange(1, tokens + 1)
    batch = {"attention_mask": (torch.arange(tokens) < lengths.unsqueeze(1)).long()}
    grad, words = torch.randn(2, tokens, tokens, 16)
    Method_.information(module, batch, grad, words, words[:, 0])
    hundredths = [(round(100 * low) * n, round(100 * high) * n) for n in lengths.tolist()]
    assert counts == [[-(-b // 100) - -(-a // 100) for a, b in hundredths]]


def test_longer_padding_changes_nothing():
    (batch,) = batches()
    longer = {
        name: value if value.ndim == 1 else F.pad(value, (0, 5)) for name, value in batch.items()
    }
    options = {"beta": 0.0, "init_size": 0.0}  # what is drawn depends on the shape
    one, other = (gradient(InfoBERT, bert(), [data], **options) for data in (batch, longer))
    close(other, one)


# ---- its surroundings ----------------------------------------------------------------------------


def test_all_passes_have_the_same_dropout_masks():
    module = InfoBERT(classify(bert(dropout=0.3)), sgd(), step_size=0.0, init_size=0.0)
    first, *others = fit(module, batches()).module.seen
    assert len(others) == 2
    for each in others:
        same(each.logits, first.logits)
    assert not torch.equal(first.logits, answer(bert(), batches()[0]))


def test_the_critic_leaves_the_random_stream_as_it_is_and_is_saved_with_the_weights():
    task = classify(bert())
    before = torch.get_rng_state()
    module = InfoBERT(task, sgd())
    same(torch.get_rng_state(), before)
    assert {name.split(".")[1] for name in module.state_dict() if "critic" in name} == {
        "words",
        "sentences",
        "score",
    }


def test_a_network_without_hidden_states_is_refused():
    network = nn.Sequential(nn.Embedding(30, 4))
    task = Classification(network, num_labels=2, at="0")
    with pytest.raises(ValueError, match="method=infobert: Sequential has no base_model"):
        InfoBERT(task, sgd())


@pytest.mark.parametrize(
    "option, value",
    [
        ("steps", 0),
        ("step_size", -0.1),
        ("radius", -1.0),
        ("init_size", -0.1),
        ("alpha", -1.0),
        ("beta", -1.0),
        ("low", -0.1),
        ("high", 1.1),
        ("high", LOW),
        ("low", float("nan")),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(option: str, value: float):
    with pytest.raises(ValueError, match=rf"method\.{option}={value}"):
        InfoBERT(classify(bert()), sgd(), **{option: value})


@pytest.mark.parametrize("family", ["GPT2", "Llama", "OPT"])
def test_a_network_whose_first_token_knows_nothing_of_the_rest_is_refused(family: str):
    """What it says there is the same for all texts that begin alike."""
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"vocab_size": 30, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    config = getattr(transformers, f"{family}Config")(**sizes)
    network = getattr(transformers, f"{family}ForSequenceClassification")(config)
    with pytest.raises(ValueError, match=f"^method=infobert: what {family}For"):
        InfoBERT(classify(network), sgd())
