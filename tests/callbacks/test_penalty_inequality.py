"""The inequality between gradients of inputs and weights: that it holds, where, and at no price."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning as L
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from testbed import (
    METHODS,
    MeanPool,
    Recorder,
    Stream,
    batches,
    bert,
    classify,
    close,
    fit,
    same,
    sgd,
    without_lightnings_own_warnings,
)
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes

from lit_adv import attention, config, cuts, regions
from lit_adv.callbacks.penalty_inequality import PenaltyInequality, figures
from lit_adv.functional.inequality import Terms, total

WIDTH, CLASSES, N = 6, 3, 5
Pair = list[Tensor]


class Classifier(L.LightningModule):
    """Anybody's module: automatic optimisation, batches in pairs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def training_step(self, batch: Pair, batch_idx: int) -> Tensor:
        return losses(self, batch).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def losses(module: L.LightningModule, batch: Pair) -> Tensor:
    network = cast(nn.Module, module.network)
    return F.cross_entropy(network(batch[0]), batch[1], reduction="none")


def pairs(count: int = N, width: int = WIDTH) -> Pair:
    stream = torch.Generator().manual_seed(0)
    x = torch.randn(count, width, generator=stream, dtype=torch.float64)
    return [x, torch.randint(CLASSES, (count,), generator=stream)]


def mlp(act: Callable[[], nn.Module] = nn.Tanh, dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(WIDTH, 8), act(), nn.Dropout(dropout),
        nn.Linear(8, 7, bias=False), act(), nn.Dropout(dropout),
        nn.Linear(7, CLASSES),
    ).double()  # fmt: skip


def measured(network: nn.Module, **options: Any) -> dict[str, Terms]:
    callback = PenaltyInequality(losses=losses, examples=N, tolerance=0, **options)
    return callback.measure(Classifier(network), pairs(N + 2))


# ---- it holds ------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", [nn.Tanh, nn.ReLU, lambda: nn.ReLU(inplace=True)])
def test_terms_are_those_of_each_example_by_the_definition(act: Callable[[], nn.Module]):
    network, (x, y) = mlp(act), pairs(N + 2)
    found = measured(network)
    assert list(found) == ["network.0", "network.3", "network.6"]
    for row in range(N):
        one = x[row].clone().requires_grad_()
        loss = F.cross_entropy(network(one), y[row])
        (of_x,) = torch.autograd.grad(loss, one, retain_graph=True)
        for name, place in zip(found, (0, 3, 6), strict=True):
            layer, before = cast(nn.Linear, network[place]), network[:place].eval()
            h = before(x[row])
            jacobian = torch.autograd.functional.jacobian(before, x[row])
            jacobian = jacobian if place else torch.eye(WIDTH).double()
            width = torch.linalg.svdvals(layer.weight)[0] * torch.linalg.svdvals(jacobian)[0]
            grads = torch.autograd.grad(loss, list(layer.parameters()), retain_graph=True)
            squares = [grad.square().sum() for grad in grads]
            sizes = [h.square().sum(), torch.ones(()).double()][: len(squares)]
            for size, square in zip(sizes, squares, strict=True):  # W by itself, and b by itself
                assert of_x.square().sum() * size / width**2 <= square * (1 + 1e-12)

            terms = Terms(*(value[row] for value in found[name]))
            close(terms.input_norm, of_x.norm())
            close(terms.weight_norm.square(), sum(squares))
            near = {"rtol": 1e-9, "atol": 0}
            torch.testing.assert_close(terms.exchange_rate, sum(sizes) / width**2, **near)
            assert 0 < terms.ratio < 1
    assert total([*found.values()]).ratio.max() < 1


def test_of_square_orthogonal_layers_it_is_an_equality():
    torch.manual_seed(0)
    chain = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(3))).double()
    for layer in chain:
        nn.init.orthogonal_(cast(nn.Linear, layer).weight)
    found = measured(chain)
    assert len(found) == 3
    one = torch.ones(N, dtype=torch.float64)
    for terms in [*found.values(), total([*found.values()])]:
        close(terms.ratio, one)
        close(terms.slack, 0 * one)


def test_without_single_examples_it_would_not_hold():
    """Gradients of weights cancel out in the mean; those of inputs do not meet."""
    network, (x, y) = mlp(), pairs(64)
    # Twice each example, once with another label: descents that undo each other.
    x, y = x.repeat(2, 1).requires_grad_(), torch.cat([y, (y + 1) % CLASSES])
    callback = PenaltyInequality(losses=losses, examples=128)
    found = total([*callback.measure(Classifier(network), [x.detach(), y]).values()])
    single = found.weight_norm.square().mean()
    mean = F.cross_entropy(network(x), y)
    grads = torch.autograd.grad(mean, list(network.parameters()))
    joint = torch.stack([grad.square().sum() for grad in grads]).sum()
    assert joint < 0.5 * single
    bound = (found.input_norm.square() * found.exchange_rate).mean()
    assert joint < bound < single


# ---- cuts ----------------------------------------------------------------------------------------


class Residual(nn.Module):
    """`W2 (x + a W1 tanh(W0 x))`."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way = way
        self.inner = nn.Linear(WIDTH, WIDTH)
        self.outer = nn.Linear(WIDTH, CLASSES)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(x)
        around = {"branch": x, "gate": x * h, "detached": x.detach(), "none": 0 * h}
        return self.outer(1e-3 * h + around[self.way])


@pytest.mark.parametrize("way", ["branch", "gate"])
def test_a_layer_with_a_way_around_it_is_no_cut(way: str):
    callback = PenaltyInequality(losses=losses)
    found = callback.measure(Classifier(Residual(way)), pairs())
    assert list(found) == ["network.outer"] and found["network.outer"].ratio.max() < 1.01
    assert list(callback.refused) == ["network.inner"]
    assert "a way around it" in callback.refused["network.inner"]
    with pytest.raises(ValueError, match="network.inner: there is a way around it"):
        measured(Residual(way), layers=["network.*"])


@pytest.mark.parametrize("way", ["detached", "none"])
def test_what_no_gradient_takes_is_no_way(way: str):
    assert list(measured(Residual(way))) == ["network.inner", "network.outer"]


def test_around_a_residual_branch_it_would_not_hold():
    network = Residual("branch")
    module, (x, y) = Classifier(network), pairs()
    with cuts.listening(module, None, ["network.inner"]) as heard:
        found = cuts.terms(module, losses(module, [x, y]), heard, ["network.inner"])
    assert found["network.inner"].ratio.min() > 1e3


class Tokens(nn.Module):
    """A layer over three tokens, with the embeddings in front that x is the output of."""

    def __init__(self, flat: bool) -> None:
        super().__init__()
        self.flat = flat
        self.words = nn.Identity()
        self.shared = nn.Linear(2, 4)
        self.head = nn.Linear(4, CLASSES)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        words = self.words(x.view(-1, 3, 2)).mul_(2)
        hidden = (
            self.shared(words.flatten(0, 1)).view(-1, 3, 4) if self.flat else self.shared(words)
        )
        return self.head(hidden.tanh().mean(1))


@pytest.mark.parametrize("flat", [False, True])
def test_a_layer_that_tokens_share_is_no_cut(flat: bool):
    callback = PenaltyInequality(losses=losses, inputs="network.words")
    found = callback.measure(Classifier(Tokens(flat)), pairs())
    assert list(found) == ["network.head"]
    assert "tokens share its weight" in callback.refused["network.shared"]


class Twice(nn.Linear):
    """A linear layer that does more."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def twin() -> nn.Sequential:
    one, other = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
    other.weight = one.weight
    return nn.Sequential(one, other, nn.Linear(WIDTH, CLASSES)).double()


def again() -> nn.Sequential:
    layer = nn.Linear(WIDTH, WIDTH)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Linear(WIDTH, CLASSES)).double()


def idle() -> nn.Module:
    network = nn.Linear(WIDTH, CLASSES).double()
    network.idle = nn.Linear(2, 2)
    return network


@pytest.mark.parametrize(
    "network, name, reason",
    [
        (lambda: nn.Sequential(Twice(WIDTH, CLASSES)).double(), "network.0", "Twice does more"),
        (twin, "network.0", "another layer has the same weight"),
        (again, "network.0", "called 2 times"),
        (idle, "network.idle", "it is not called"),
    ],
)
def test_a_layer_is_refused_with_its_reason(
    network: Callable[[], nn.Module], name: str, reason: str
):
    with pytest.raises(ValueError, match=f"layers=.*which these are not: {name}: .*{reason}"):
        measured(network(), layers=name)


# ---- BERT ----------------------------------------------------------------------------------------


def tuned(network: nn.Module | None = None, **options: Any) -> Recorder:
    network = bert(layers=2) if network is None else network
    return METHODS["freelb"](classify(network), sgd(lr=0.3, **options))


def test_the_cuts_of_a_bert_are_its_pooler_and_its_classifier():
    callback, module, (batch,) = PenaltyInequality(examples=3, tolerance=1e-7), tuned(), batches()
    found = callback.measure(module, batch)
    assert list(found) == ["bert.pooler.dense", "classifier"]
    names = [n for n, m in module.task.network.named_modules() if isinstance(m, nn.Linear)]
    assert set(callback.refused) == set(names) - set(found) and len(names) == 14
    assert all("tokens share its weight" in reason for reason in callback.refused.values())

    module.eval()
    network: Any = module.task.network
    for row in range(3):
        one = {name: value[row : row + 1] for name, value in batch.items()}
        words = network.bert.embeddings.word_embeddings(one["input_ids"]).detach()
        words.requires_grad_()
        with attention.twice_differentiable():
            answer = network.bert(inputs_embeds=words, attention_mask=one["attention_mask"])
        h = answer.last_hidden_state[0, 0]
        jacobian = torch.stack(
            [torch.autograd.grad(each, words, retain_graph=True)[0].flatten() for each in h]
        )
        layer = network.bert.pooler.dense
        width = torch.linalg.svdvals(layer.weight)[0] * torch.linalg.svdvals(jacobian)[0]
        loss = F.cross_entropy(network.classifier(answer.pooler_output), one["labels"])
        of_x, *of_weights = torch.autograd.grad(loss, [words, *layer.parameters()])
        terms = Terms(*(value[row] for value in found["bert.pooler.dense"]))
        close(terms.input_norm, of_x.norm())
        close(terms.weight_norm.square(), sum(grad.square().sum() for grad in of_weights))
        rate = (1 + h.square().sum()) / width**2
        torch.testing.assert_close(terms.exchange_rate, rate, rtol=1e-4, atol=0)
    assert all((terms.ratio <= 1).all() for terms in found.values())


# ---- it only watches -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("recompute", [False, True])
def test_training_goes_on_to_the_last_bit(mode: Any, recompute: bool):
    def run(*callbacks: L.Callback):
        module = tuned(bert(dropout=0.3), accumulate_grad_batches=2)
        regions.prepare(module.task.network, gradient_checkpointing=recompute)
        return fit(module, batches(4), callbacks=callbacks)

    watched = run(PenaltyInequality(1, mode=mode, picture=False))
    alone = run()
    same(watched.gradients, alone.gradients)
    same(watched.weights, alone.weights)


def test_a_dropout_mask_is_one_of_training_or_none():
    module, (batch,) = tuned(bert(dropout=0.5)), batches()
    found: dict[str, list[Tensor]] = {"eval": [], "train": []}
    for mode, values in found.items():
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            callback = PenaltyInequality(mode=cast(Any, mode))
            values.append(callback.measure(module, batch)["classifier"].ratio)
    same(found["eval"][0], found["eval"][2])
    same(found["train"][0], found["train"][1])
    assert not torch.equal(found["train"][0], found["train"][2])
    assert all((ratio <= 1.02).all() for ratio in found["train"])


def test_what_was_touched_is_put_back_also_after_an_error():
    network = mlp(dropout=0.5)
    network[2].eval()
    cast(nn.Linear, network[3]).weight.requires_grad_(False)
    module, batch = Classifier(network), SimpleNamespace(pair=pairs())  # of an unknown kind
    states = [m.training for m in module.modules()], [w.requires_grad for w in module.parameters()]
    stream = torch.get_rng_state()

    def objective(module: L.LightningModule, batch: Any, fails: bool) -> Tensor:
        torch.rand(3)
        return losses(module, batch.pair) / (1 // (not fails))

    for fails in (False, True):
        callback = PenaltyInequality(losses=partial(objective, fails=fails))
        with pytest.raises(ZeroDivisionError) if fails else nullcontext():
            callback.measure(module, batch)
        assert states == (
            [m.training for m in module.modules()],
            [w.requires_grad for w in module.parameters()],
        )
        same(torch.get_rng_state(), stream)
        assert not batch.pair[0].requires_grad
        assert all(w.grad is None for w in module.parameters())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


# ---- in training ---------------------------------------------------------------------------------


def trained(
    module: L.LightningModule, data: list[Pair], *callbacks: L.Callback, **options: Any
) -> L.Trainer:
    with without_lightnings_own_warnings():
        trainer = L.Trainer(
            accelerator="cpu", enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[*callbacks], **options,
        )  # fmt: skip
        trainer.fit(module, Stream(cast(Any, data)))
    return trainer


def test_anybodys_network_for_digits_is_measured_and_drawn(tmp_path: Path):
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    x = torch.tensor(digits.data / 16, dtype=torch.float32).view(-1, 8, 8)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(32, 10)
    )
    parts = zip(x.split(64), torch.tensor(digits.target).split(64), strict=True)
    data = [[*part] for part in parts]
    callback, logger = PenaltyInequality(10, losses=losses), CSVLogger(tmp_path, "", "")
    options = {"max_epochs": 2, "logger": logger, "default_root_dir": tmp_path}
    trainer = trained(Classifier(network), data, callback, log_every_n_steps=7, **options)

    assert [row["step"] for row in callback.series] == [0, 10, 20, 30, 40, 50]
    last = {name: value for name, value in callback.series[-1].items() if name != "step"}
    places = ["", "network.1/", "network.4/"]
    expected = {f"inequality/{p}{f}" for p in places for f in ("ratio", "slack", "exchange_rate")}
    assert set(last) == expected | {"inequality/input_gradient"}
    for row in callback.series:
        assert all(0 < row[f"inequality/{place}ratio"] < 1.02 for place in places)
    for name, value in last.items():
        assert float(trainer.callback_metrics[name]) == pytest.approx(value)
    text = (tmp_path / "metrics.csv").read_text()
    assert all(str(row["inequality/ratio"]) in text for row in callback.series)
    assert (tmp_path / "penalty_inequality.png").stat().st_size > 10_000


@pytest.mark.parametrize("accumulate, steps", [(1, [0, 3]), (2, [0])])
def test_it_measures_at_the_first_batch_of_every_nth_step(accumulate: int, steps: list[int]):
    callback = PenaltyInequality(3, picture=False)
    fit(tuned(MeanPool(), accumulate_grad_batches=accumulate), batches(5), callbacks=[callback])
    assert [row["step"] for row in callback.series] == steps


def test_a_resumed_series_is_that_of_an_uninterrupted_training(tmp_path: Path):
    whole, half = (PenaltyInequality(2, picture=False) for _ in range(2))
    save = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    data = batches(3)
    options = {"epochs": 3, "enable_checkpointing": True}
    run = fit(tuned(MeanPool()), data, callbacks=[whole, save], **options)
    path = str(tmp_path / "epoch=0.ckpt")
    with pytest.warns(match="callbacks used to create the checkpoint"):
        fit(tuned(MeanPool()), data, epochs=3, callbacks=[half], resume=path)
    assert half.series == whole.series and len(whole.series) == 5
    with without_lightnings_own_warnings():
        run.trainer.validate(run.module, Stream(batches()), ckpt_path=path, verbose=False)
    assert half.series == whole.series  # a checkpoint that is only judged takes nothing back
    fit(tuned(MeanPool()), data, callbacks=[half])
    assert half.series == whole.series[:2]  # another training begins anew


def test_means_are_those_of_the_examples_that_have_a_ratio():
    of_x, of_weights = torch.tensor([1.0, 0.0, 1.0, 0.0]), torch.tensor([2.0, 0.0, 2.0, 1.0])
    means = figures({"a": Terms(of_x, of_weights, torch.tensor([1.0, 1.0, 3.0, 3.0]))})
    assert means["inequality/a/ratio"] == pytest.approx((1 / 4 + 3 / 4 + 0) / 3)
    assert means["inequality/a/slack"] == pytest.approx(-math.log(3 / 16) / 2)  # one is infinite
    assert means["inequality/a/exchange_rate"] == pytest.approx(2)
    assert means["inequality/input_gradient"] == pytest.approx(1 / 2)
    assert means["inequality/ratio"] == means["inequality/a/ratio"]


@pytest.mark.filterwarnings("ignore:.*use of fork")
def test_of_several_processes_the_means_are_those_of_all_examples(tmp_path: Path):
    terms = measured(mlp())  # of five examples, of which one process has two
    # Forked: a fresh process would take seconds for its imports.
    start_processes(part, (terms, tmp_path), nprocs=2, start_method="fork")
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert one == other == pytest.approx(figures(terms))


def part(rank: int, terms: dict[str, Terms], folder: Path) -> None:
    """One of the processes."""
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    rows = slice(2) if rank else slice(2, None)
    mine = {name: Terms(*(value[rows] for value in each)) for name, each in terms.items()}
    torch.save(figures(mine), folder / f"{rank}.pt")
    dist.destroy_process_group()


# ---- settings ------------------------------------------------------------------------------------


def test_the_yaml_has_the_defaults():
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        node = compose("train", ["callbacks=penalty_inequality", "output_dir=."])
    found, default = instantiate(node.callbacks.penalty_inequality), PenaltyInequality()
    assert vars(found) == vars(default)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"every_n_steps": 0}, "every_n_steps=0: needs to be at least 1"),
        ({"examples": 0}, "examples=0: needs to be at least 1"),
        ({"tolerance": -1.0}, "tolerance=-1.0: needs to be at least 0"),
        ({"mode": "off"}, "mode=off: choose one of eval, train"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        PenaltyInequality(**options)


@pytest.mark.parametrize(
    "network, options, message",
    [
        (mlp, {"losses": None}, "losses=null: Classifier has no task"),
        (mlp, {"layers": ["network.9"]}, "layers=network.9: no such linear layer; there are netw"),
        (mlp, {"inputs": "words"}, "inputs=words: no such module"),
        (
            lambda: nn.Sequential(nn.BatchNorm1d(WIDTH), mlp()).double(),
            {"mode": "train"},
            "mode=train: through batch norms",
        ),
        (lambda: nn.LayerNorm(WIDTH).double(), {}, "layers=None: .*none there"),
        (mlp, {"losses": lambda m, b: losses(m, b).mean()}, r"losses=\[\], inputs=.*needs losses"),
        (mlp, {"losses": lambda m, b: losses(m, b).detach()}, "needs losses .batch. that depend"),
        (mlp, {"inputs": "network"}, "which these are not: .*does not depend on the inputs"),
    ],
)
def test_what_cannot_be_measured_is_refused_when_training_starts(
    network: Callable[[], nn.Module], options: dict[str, Any], message: str
):
    callback = PenaltyInequality(**{"losses": losses, **options})
    with pytest.raises(ValueError, match=message):
        trained(Classifier(network()), [pairs()], callback, max_steps=1, logger=False)


def test_compiled_layers_are_refused():
    module = tuned()
    regions.prepare(module.task.network, compile=True, backend="eager")
    with pytest.raises(ValueError, match="model.compile=true: .*differentiates twice"):
        fit(module, batches(), callbacks=[PenaltyInequality()])
