"""What holds for every method that perturbs, in real trainings."""

import itertools
from collections.abc import Callable
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from testbed import (
    FINETUNE,
    FREE,
    METHODS,
    STILL,
    WORDS,
    Answer,
    MeanPool,
    Pass,
    Recorder,
    Tensors,
    answer,
    batches,
    bert,
    classify,
    close,
    cut,
    fit,
    loss,
    norms,
    recording,
    same,
    sgd,
)
from testbed import PERTURBING as BY_ONE_STEP
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lit_adv.descent import Schedule
from lit_adv.finetuner import FineTuner
from lit_adv.functional import ball
from lit_adv.methods.fgm import FGM
from lit_adv.methods.free_at import FreeAT
from lit_adv.methods.freelb import FreeLB
from lit_adv.methods.input_gradient_penalty import InputGradientPenalty
from lit_adv.methods.llr import LLR
from lit_adv.methods.pgd import PGD
from lit_adv.methods.smart import SMART
from lit_adv.methods.vat import VAT
from lit_adv.methods.yopo import YOPO
from lit_adv.proximal.mbpp import MBPP
from lit_adv.proximal.vbpp import VBPP
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.contrastive import Contrastive
from lit_adv.tasks.task import Batch

PERTURBING = {**BY_ONE_STEP, "free_at": FREE}
every_method = pytest.mark.parametrize("name", PERTURBING)

# Why some laws do not bind some methods.
ONE_PASS = {"noise", "gaussian"}  # with nothing to ascend, and no second pass to compare with
RANDOM = {*ONE_PASS, "r3f"}  # perturbed by noise alone
ALIKE = {"fgm", "fgsm", "fgm_table"}  # perturbed alike whenever weights and dropout are
JOINT = {"fgm_table", "infobert"}  # a norm, or a bound on information, over the whole batch


def methods_but(*excepted: str) -> Any:
    return pytest.mark.parametrize("name", [name for name in PERTURBING if name not in excepted])


def settings_but(*excepted: str) -> Any:
    settings = [setting for setting, (name, _) in SETTINGS.items() if name not in excepted]
    return pytest.mark.parametrize("setting", settings)


# Every norm, measure and update that a method offers.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in PERTURBING},
    "pgd_a, linf": ("pgd_a", {"norm": "linf"}),
    "pgd_b, linf": ("pgd_b", {"norm": "linf"}),
    "pgd_b, soft-inf": ("pgd_b", {"norm": "soft-inf"}),
    "pgd_b, no start": ("pgd_b", {"init_size": 0.0}),
    "pgd_b, no step": ("pgd_b", {"steps": 0}),
    "freelb, linf": ("freelb", {"norm": "linf"}),
    "freelb, soft-inf": ("freelb", {"norm": "soft-inf"}),
    "freelb, one pass": ("freelb", {"steps": 1}),
    "smart, linf per token": ("smart", {"norm": "linf", "per": "token"}),
    "smart, soft-inf per token": ("smart", {"norm": "soft-inf", "per": "token"}),
    "smart, l2 per token": ("smart", {"per": "token"}),
    "smart, renormalised": ("smart", {"update": "renormalise"}),
    "smart, relative": ("smart", {"relative": True}),
    "vat, relative": ("vat", {"relative": True}),
    "fgsm, adversarial only": ("fgsm", {"clean": 0.0}),
    "r3f, uniform": ("r3f", {"noise": "uniform"}),
    "llr, linf": ("llr", {"norm": "linf"}),
    "yopo, linf": ("yopo", {"norm": "linf"}),
    "yopo, one inner step": ("yopo", {"inner_steps": 1}),
    "free_at, linf": ("free_at", {"norm": "linf"}),
}
every_setting = pytest.mark.parametrize("setting", SETTINGS)


def build(setting: str, network: nn.Module, special_tokens: str = "perturb") -> Recorder:
    """The method in this setting around this network."""
    name, options = SETTINGS[setting]
    task = classify(network, special_tokens=special_tokens)
    return PERTURBING[name](task, sgd(lr=0.0), **options)


# ---- the place and size of the perturbation ------------------------------------------------------


@every_setting
@pytest.mark.parametrize("special_tokens", ["perturb", "keep"])
def test_padding_and_kept_special_tokens_are_never_perturbed(setting: str, special_tokens: str):
    (batch,) = batches(size=6)
    module = build(setting, MeanPool(leak=True), special_tokens)
    deltas = fit(module, [batch]).module.deltas

    free = batch["attention_mask"].bool()
    if special_tokens == "keep":
        free &= ~batch["special_tokens_mask"].bool()
    assert not free.all()
    for delta in deltas:
        assert torch.equal(delta[~free], torch.zeros_like(delta[~free]))
    assert (deltas[-1][free] != 0).any(dim=-1).all()


def size_of(delta: Tensor, norm: str, per: str) -> Tensor:
    rows = delta.flatten(1) if per == "example" else delta
    return rows.norm(dim=-1) if norm == "l2" else rows.abs().amax(dim=-1)


@settings_but(*RANDOM, "fgsm", "fgm_table", "freelb_pp")
def test_no_projected_perturbation_is_larger_than_the_radius(setting: str):
    name, options = SETTINGS[setting]
    module = build(setting, bert())
    deltas = fit(module, batches()).module.deltas
    if name == "smart":
        del deltas[0]  # the normal noise it starts from

    norm, per = options.get("norm", "l2"), options.get("per", "example")
    largest = max(float(size_of(delta, norm, per).max()) for delta in deltas)
    assert largest <= 0.5 * (1 + 1e-12)
    if setting not in ("pgd_b, no step", "freelb, one pass"):
        assert largest == pytest.approx(0.5)


@settings_but(*RANDOM)
@pytest.mark.parametrize("steps", [0, 2])
def test_radius_zero_perturbs_nothing(setting: str, steps: int):
    name, options = SETTINGS[setting]
    options = {**options, "radius": 0.0}
    if name in ("pgd_a", "pgd_b", "smart", "vat", "llr"):
        options["steps"] = steps
    elif name in ("freelb", "freelb_pp", "tavat", "infobert"):
        options["steps"] = steps + 1
    module = PERTURBING[name](classify(MeanPool(bend=True)), sgd(), **options)
    deltas = [each.delta for each in fit(module, batches()).module.seen if each.trains]
    assert deltas[-1] is not None
    for delta in deltas:
        assert delta is None or not delta.any()


@pytest.mark.parametrize("method", [PGD, FreeLB, SMART, FreeAT, LLR, partial(YOPO, split="head")])
@pytest.mark.parametrize("norm", ["inf", "l1", "L2"])
def test_an_unknown_norm_is_refused(method: Callable[..., FineTuner], norm: str):
    with pytest.raises(ValueError, match=norm):
        method(classify(MeanPool()), norm=norm)


# ---- what must not matter ------------------------------------------------------------------------


@pytest.fixture
def noise_as_for(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Draw noise as for the mask of another batch, of which the one at hand is a part."""
    draws = {name: getattr(ball, name) for name in ("sample", "gaussian")}

    def pin(whole: Tensor, rows: slice = slice(None)) -> None:
        for name, draw in draws.items():

            def part(
                mask: Tensor, *args: Any, draw: Callable[..., Tensor] = draw, **options: Any
            ) -> Tensor:
                if mask.shape[1] == 1:  # not of a batch: the rows of a table
                    return draw(mask, *args, **options)
                return draw(whole, *args, **options)[rows, : mask.shape[1]]

            monkeypatch.setattr(ball, name, part)

    return pin


@settings_but("infobert")  # which draws pairs of words, padding among them, from its stream
def test_more_padding_changes_nothing(setting: str, noise_as_for: Callable[..., None]):
    (short,) = batches()
    long = {k: v if k == "labels" else nn.functional.pad(v, (0, 3)) for k, v in short.items()}
    noise_as_for(long["attention_mask"].bool())
    one, other = (fit(build(setting, bert()), [batch]) for batch in (short, long))
    close(one.gradients, other.gradients)
    for delta, padded in zip(one.module.deltas, other.module.deltas, strict=True):
        close(delta, padded[:, :-3])


@settings_but(*JOINT)
def test_an_example_is_perturbed_in_a_batch_as_alone(
    setting: str, noise_as_for: Callable[..., None]
):
    (batch,) = batches()
    whole = batch["attention_mask"].bool()
    together = fit(build(setting, bert()), [batch])
    alone = []
    for row, example in enumerate(cut(batch, 1, 1, 1, 1)):
        noise_as_for(whole, slice(row, row + 1))
        alone.append(fit(build(setting, bert()), [example]))

    for i, delta in enumerate(together.module.deltas):
        close(delta, torch.cat([run.module.deltas[i] for run in alone]))
    for name, grad in together.gradients[0].items():
        close(grad, torch.stack([run.gradients[0][name] for run in alone]).mean(0))


class Scaled(Classification):
    """All losses and divergences, and so all gradients, times a factor."""

    factor: float | Tensor = 1.0

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        return self.factor * super().losses(logits, batch)

    def divergence(self, p: Tensor, q: Tensor, batch: Batch) -> Tensor:
        return self.factor * super().divergence(p, q, batch)

    def towards(self, p: Tensor, q: Tensor, batch: Batch) -> Tensor:
        return self.factor * super().towards(p, q, batch)


@pytest.mark.parametrize("setting", [each for each in SETTINGS if each != "smart, renormalised"])
def test_the_scale_of_the_loss_does_not_matter(setting: str):
    name, options = SETTINGS[setting]

    def perturb(factor: float) -> list[Tensor]:
        task = Scaled(bert(), num_labels=2)
        task.factor = factor
        return fit(PERTURBING[name](task, sgd(lr=0.0), **options), batches()).module.deltas

    expected = perturb(1.0)
    for power_of_two in (2.0**-40, 2.0**40):
        same(perturb(power_of_two), expected)
    for factor in (3.7e-9, 3.7e9):
        close(perturb(factor), expected)


@methods_but("fgm_table")
def test_the_scale_of_one_examples_loss_changes_no_perturbation(name: str):
    deltas = []
    for scales in ([1.0, 1.0, 1.0, 1.0], [1.0, 2.0**40, 1.0, 2.0**-40]):
        task = Scaled(bert(), num_labels=2)
        task.factor = torch.tensor(scales)
        deltas.append(fit(PERTURBING[name](task, sgd(lr=0.0)), batches()).module.deltas)
    same(*deltas)


# ---- isolation -----------------------------------------------------------------------------------


def trace(network: nn.Module) -> dict[str, list[Any]]:
    """All that an ascent could disturb."""
    grads = [weight.grad for weight in network.parameters()]
    return {
        "weights": [weight.tolist() for weight in network.parameters()],
        "flags": [weight.requires_grad for weight in network.parameters()],
        "grads": [None if grad is None else (id(grad), grad.tolist()) for grad in grads],
        "buffers": [buffer.tolist() for buffer in network.buffers()],
        "modes": [module.training for module in network.modules()],
        "hooks": [list(module._forward_hooks) for module in network.modules()],
    }


def lasting(trace: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Without the gradients, which a training pass leaves."""
    return {name: each for name, each in trace.items() if name != "grads"}


def delicate() -> MeanPool:
    """Batch norm, dropout, a frozen weight, a gradient from before, and a hook."""
    network = MeanPool(dropout=0.5, bend=True, norm=True)
    assert network.bend is not None
    network.bend.bias.requires_grad_(False)
    network.bend.weight.grad = torch.ones_like(network.bend.weight)
    network.words.register_forward_hook(lambda *_: None)
    return network


@pytest.mark.parametrize("raising", ["nothing", "network", "objective"])
def test_an_ascent_leaves_no_trace(raising: str):
    network = delicate()
    module = FineTuner(classify(network), sgd())
    network.dropout.eval()
    (batch,) = batches()
    delta = torch.randn(4, 7, 4, dtype=torch.float64)

    def fail(*_: Any) -> Any:
        raise ArithmeticError

    if raising == "network":
        network.head.register_forward_pre_hook(fail)
    before = trace(network)
    if raising == "nothing":
        assert module.ascent(batch, delta).any()
    else:
        with pytest.raises(ArithmeticError):
            module.ascent(batch, delta, fail if raising == "objective" else None)
    assert trace(network) == before


class Watched(Recorder):
    """Looks around before and after every ascent."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.looks: list[tuple[dict[str, list[Any]], dict[str, list[Any]]]] = []

    def ascent(
        self, batch: Batch, delta: Tensor, objective: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        before = trace(self.task)
        grad = super().ascent(batch, delta, objective)
        self.looks.append((before, trace(self.task)))
        return grad


@pytest.mark.parametrize(
    "method, options", [(PGD, {"form": "B"}), (SMART, {}), (VAT, {}), (LLR, {})]
)
def test_ascents_between_training_passes_leave_no_trace(
    method: type[FineTuner], options: dict[str, Any]
):
    network = delicate()
    if method is LLR:  # refuses batch norms
        network.norm = None
    task = classify(network)
    descent = sgd(accumulate_grad_batches=2)
    module = recording(method, Watched)(task, descent, steps=3, **options)
    assert isinstance(module, Watched)
    fit(module, batches(2))
    assert len(module.looks) == 2 * 3
    for before, after in module.looks:
        assert after == before


@every_method
def test_a_step_changes_nothing_but_what_trains(name: str):
    network = delicate()
    network.norm = None  # whose statistics every training pass moves
    module = PERTURBING[name](classify(network), sgd(lr=0.0))
    before = trace(network)
    fit(module, batches(2))
    assert lasting(trace(network)) == lasting(before)


class Fragile(Classification):
    """Fails the second time that it compares."""

    calls = 0

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        self._count(logits)
        return super().losses(logits, batch)

    def divergence(self, p: Tensor, q: Tensor, batch: Batch) -> Tensor:
        self._count(p)
        return super().divergence(p, q, batch)

    def towards(self, p: Tensor, q: Tensor, batch: Batch) -> Tensor:
        self._count(p)
        return super().towards(p, q, batch)

    def _count(self, logits: Tensor) -> None:
        if torch.is_grad_enabled() and logits.requires_grad:
            self.calls += 1
        if self.calls == 2:
            raise ArithmeticError


@methods_but(*ONE_PASS)
def test_a_failing_loss_leaves_no_trace(name: str):
    network = MeanPool(dropout=0.5, bend=True)
    task = Fragile(network, num_labels=2)
    module = PERTURBING[name](task, sgd())
    before = trace(network)
    with pytest.raises(ArithmeticError):
        fit(module, batches())
    assert lasting(trace(network)) == lasting(before)

    one, other = (module.logits(batches()[0]) for _ in range(2))
    assert not torch.equal(one, other)  # dropout is free again


# ---- degenerate gradients ------------------------------------------------------------------------


@settings_but("tavat")  # whose words lose length against the longest
def test_without_a_gradient_the_perturbation_stays_at_its_start(setting: str):
    network = MeanPool()
    nn.init.zeros_(network.head.weight)
    run = fit(build(setting, network), batches())
    first_is_clean = SETTINGS[setting][0] in ("pgd_a", "llr")
    start, *later = run.module.deltas[first_is_clean:]
    for delta in later:
        close(delta, later[0])
    if SETTINGS[setting][0] not in ("smart", "vat"):  # whose start is no perturbation yet
        same([start] * len(later), later)
    for grad in run.gradients[0].values():
        assert grad.isfinite().all()


@methods_but(*RANDOM, "vat", "llr")
def test_from_a_start_at_zero_no_gradient_means_no_perturbation(name: str):
    network = MeanPool()
    nn.init.zeros_(network.head.weight)
    start = {key: 0.0 for key in STILL[name] if key in ("init_size", "noise_std")}
    run = fit(PERTURBING[name](classify(network), sgd(lr=0.0), **start), batches())
    assert run.module.deltas
    for delta in run.module.deltas:
        assert not delta.any()


@every_setting
def test_an_example_without_free_tokens_stays_as_it_is(setting: str):
    (batch,) = batches()
    batch["special_tokens_mask"][1] = 1
    run = fit(build(setting, bert(), "keep"), [batch])
    for delta in run.module.deltas:
        assert delta.isfinite().all()
        assert not delta[1].any()
    assert run.module.deltas[-1][0].any()
    for grad in run.gradients[0].values():
        assert grad.isfinite().all()


# ---- randomness ----------------------------------------------------------------------------------


def of_each_step(seen: list[Pass], steps: int) -> list[list[Pass]]:
    per_step, rest = divmod(len(seen), steps)
    assert not rest and per_step > 1
    return [seen[i : i + per_step] for i in range(0, len(seen), per_step)]


@methods_but(*ONE_PASS)
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_all_passes_over_a_batch_draw_the_same_dropout_masks(name: str, weight: float):
    """Also the clean pass that is there for the proximal penalty alone."""
    descent = sgd(lr=0.0, proximal=MBPP(weight=weight))
    module = PERTURBING[name](classify(bert(dropout=0.3)), descent, **STILL[name])
    first, second = of_each_step(fit(module, batches() * 2).module.seen, 2)
    for step in (first, second):
        for each in step[1:]:
            same(each.logits, step[0].logits)
    assert not torch.equal(first[0].logits, second[0].logits)


@methods_but(*ONE_PASS)
def test_passes_may_draw_different_dropout_masks(name: str):
    options = {**STILL[name], "same_dropout": False}
    module = PERTURBING[name](classify(bert(dropout=0.3)), sgd(), **options)
    seen = fit(module, batches()).module.seen
    for one, other in itertools.combinations(seen, 2):
        assert not torch.equal(one.logits, other.logits)


@every_method
def test_dropout_goes_on_as_in_plain_fine_tuning(name: str):
    states = []
    for method in (FINETUNE, PERTURBING[name]):
        fit(method(classify(bert(dropout=0.3)), sgd()), batches(3))
        states.append(torch.get_rng_state())
    same(*states)


@pytest.mark.parametrize("name", ["pgd_b", "freelb", "smart", "yopo", "tavat", "infobert"])
def test_noise_does_not_draw_from_dropouts_stream(name: str):
    silent = {key: 0.0 for key in STILL[name] if key in ("init_size", "noise_std")}
    states, starts = [], []
    for noise in ({}, silent):
        task = classify(bert(dropout=0.3))
        run = fit(PERTURBING[name](task, sgd(), same_dropout=False, **noise), batches(3))
        states.append(torch.get_rng_state())
        starts.append(run.module.deltas[0])
    same(*states)
    assert starts[0].any() and not starts[1].any()


@every_method
def test_the_same_seed_gives_the_same_perturbations(name: str):
    one, again, other = (
        fit(PERTURBING[name](classify(bert(dropout=0.3)), sgd()), batches(2), seed=seed)
        for seed in (5, 5, 6)
    )
    same(one.module.deltas, again.module.deltas)
    same(one.weights, again.weights)
    assert not torch.equal(one.module.deltas[-1], other.module.deltas[-1])


@methods_but(*ALIKE, *ONE_PASS)
def test_every_batch_gets_noise_of_its_own(name: str):
    module = PERTURBING[name](classify(bert()), sgd(lr=0.0))
    first, second = of_each_step(fit(module, batches() * 2).module.seen, 2)
    assert not torch.equal(first[-1].moved, second[-1].moved)


# ---- the ascent ----------------------------------------------------------------------------------


def symmetric_kl(p: Tensor, q: Tensor) -> Tensor:
    p, q = p.log_softmax(-1), q.log_softmax(-1)
    return ((p.exp() - q.exp()) * (p - q)).sum(-1)


def objective_of(name: str, network: nn.Module, batch: Tensors) -> Callable[[Tensor], Tensor]:
    """What the perturbation climbs, per example."""
    if name == "smart":
        clean = answer(network, batch).detach()
        return lambda delta: symmetric_kl(answer(network, batch, delta), clean)
    return lambda delta: loss(network, batch, delta)


def climb(name: str, network: nn.Module, batch: Tensors, size: float) -> list[Tensor]:
    """The perturbations of one ascent in unprojected steps of this size."""
    one_step = {"fgm": {"radius": size}, "fgsm": {"radius": size}}
    options = one_step.get(name, {"radius": torch.inf, "step_size": size})
    run = fit(PERTURBING[name](classify(network), sgd(lr=0.0), **options), [batch])
    return run.module.deltas[name == "pgd_a" :]


@methods_but(*RANDOM, "fgm_table", "vat", "llr", "tavat", "yopo_pmp")
def test_a_small_ascent_raises_the_objective_of_every_example(name: str):
    network, (batch,) = bert(), batches()
    objective = objective_of(name, network, batch)
    values = [objective(delta) for delta in climb(name, network, batch, 1e-4)]
    assert len(values) > 1
    for lower, higher in itertools.pairwise(values):
        assert (higher > lower).all()


@methods_but(*RANDOM, "fgsm", "fgm_table", "vat", "llr", "tavat", "yopo", "yopo_pmp")
def test_every_step_follows_the_finite_difference_gradient(name: str):
    network, (batch,) = MeanPool(bend=True), batches(size=3, tokens=4)
    objective = objective_of(name, network, batch)
    deltas = climb(name, network, batch, 0.3)
    assert len(deltas) > 1
    for before, after in itertools.pairwise(deltas):
        slope = torch.zeros_like(before)
        for token, coordinate in itertools.product(range(4), range(4)):
            nudge = torch.zeros_like(before)
            nudge[:, token, coordinate] = 1e-5
            rise = objective(before + nudge) - objective(before - nudge)
            slope[:, token, coordinate] = rise.detach() / 2e-5
        expected = 0.3 * slope / norms(slope).view(-1, 1, 1)
        torch.testing.assert_close(after - before, expected, rtol=1e-7, atol=1e-7)


@methods_but("free_at", "tavat")  # whose table is written between steps
def test_two_micro_batches_give_the_mean_of_their_own_gradients(name: str):
    apart, joined = (
        fit(
            PERTURBING[name](classify(bert()), sgd(lr=0.0, accumulate_grad_batches=size)),
            batches(2),
        )
        for size in (1, 2)
    )
    assert len(apart.gradients) == 2 and len(joined.gradients) == 1
    same(apart.module.deltas, joined.module.deltas)
    for key, grad in joined.gradients[0].items():
        close(grad, (apart.gradients[0][key] + apart.gradients[1][key]) / 2)


# ---- half precision ------------------------------------------------------------------------------


@methods_but(*RANDOM, "llr")  # whose gap is a small difference, lost to rounding
def test_autocast_keeps_the_perturbation_in_float32_and_its_direction(name: str):
    options = {"noise_std": 0.1} if name == "smart" else {}
    full, half = (
        fit(
            PERTURBING[name](classify(bert().float()), sgd(), **options),
            batches(),
            precision=precision,
        )
        for precision in ("32-true", "bf16-mixed")
    )
    for delta in half.module.deltas:
        assert delta.dtype == torch.float32
        assert delta.isfinite().all()
    assert not torch.equal(full.module.deltas[-1], half.module.deltas[-1])
    cosine = torch.cosine_similarity(
        full.module.deltas[-1].flatten(1), half.module.deltas[-1].flatten(1)
    )
    assert (cosine > 0.9).all()
    for grad in half.gradients[0].values():
        assert grad.isfinite().all()


@every_setting
def test_half_precision_weights_keep_the_perturbation_in_float32(setting: str):
    run = fit(build(setting, bert()), batches(), precision="bf16-true")
    assert run.weights["network.classifier.weight"].dtype == torch.bfloat16
    for delta in run.module.deltas:
        assert delta.dtype == torch.float32
        assert delta.isfinite().all()


@pytest.mark.parametrize("name", METHODS)
def test_an_overflow_at_the_first_loss_scale_is_no_failure(name: str):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    late = Schedule(name="constant", warmup=0.0, interval="epoch")
    module = METHODS[name](classify(bert().float()), sgd(schedule=late))
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    run = fit(module, batches(15), precision=None, plugins=[plugin])
    assert scaler.get_scale() < 2.0**24  # steps were skipped
    for delta in run.module.deltas:
        assert delta.isfinite().all()
    for weight in run.weights.values():
        assert weight.isfinite().all()


# ---- cost ----------------------------------------------------------------------------------------


class Product(torch.autograd.Function):
    """`x @ weight.T` that counts: forward, backward to the input, backward to the weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, count: SimpleNamespace) -> Tensor:
        ctx.count = count
        ctx.save_for_backward(x, weight)
        count.forward += 1
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        to_input = to_weight = None
        if ctx.needs_input_grad[0]:
            ctx.count.to_input += 1
            to_input = grad @ weight
        if ctx.needs_input_grad[1]:
            ctx.count.to_weight += 1
            to_weight = grad.flatten(0, 1).T @ x.flatten(0, 1)
        return to_input, to_weight, None


class Counted(nn.Module):
    """One layer that counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.count = SimpleNamespace(forward=0, to_input=0, to_weight=0)
        self.words = nn.Embedding(WORDS, 4)
        self.layer = nn.Linear(4, 2)
        self.double()

    def get_input_embeddings(self) -> nn.Module:
        return self.words

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Answer:
        logits = Product.apply(self.words(input_ids), self.layer.weight, self.count)
        return Answer((logits * attention_mask.unsqueeze(-1)).sum(1).tanh())


COSTS: list[tuple[str, dict[str, Any], tuple[int, int, int]]] = [
    ("finetune", {}, (1, 1, 1)),
    ("fgm", {}, (2, 2, 2)),
    ("pgd_a", {"steps": 0, "init_size": 0.0}, (2, 2, 2)),
    ("pgd_a", {"steps": 1, "init_size": 0.0}, (2, 2, 2)),
    ("pgd_a", {"steps": 3, "init_size": 0.0}, (4, 4, 2)),
    ("pgd_a", {"steps": 3, "init_size": 0.4}, (5, 5, 2)),
    ("pgd_b", {"steps": 0, "init_size": 0.4}, (1, 1, 1)),
    ("pgd_b", {"steps": 1, "init_size": 0.0}, (2, 2, 1)),
    ("pgd_b", {"steps": 3, "init_size": 0.4}, (4, 4, 1)),
    ("freelb", {"steps": 1}, (1, 1, 1)),
    ("freelb", {"steps": 3}, (3, 3, 3)),
    ("noise", {}, (1, 1, 1)),
    ("gaussian", {}, (1, 1, 1)),
    ("r3f", {}, (2, 2, 2)),
    ("fgsm", {}, (2, 2, 2)),
    ("fgsm", {"clean": 0.0}, (2, 2, 1)),
    ("fgm_table", {}, (2, 2, 2)),
    ("freelb_pp", {"steps": 5}, (5, 5, 5)),
    ("free_at", {"replays": 4}, (4, 4, 4)),
    ("tavat", {"steps": 3}, (3, 3, 3)),
    ("vat", {"steps": 1}, (3, 3, 2)),
    ("vat", {"steps": 3}, (5, 5, 2)),
    ("smart", {"steps": 0}, (2, 2, 2)),
    ("smart", {"steps": 1}, (3, 3, 2)),
    ("smart", {"steps": 3}, (5, 5, 2)),
]


ALL = {**METHODS, "free_at": FREE}
WITH_CLEAN_ANSWER = {"finetune", "smart", "vat", "r3f", "rdrop"}


@pytest.mark.parametrize("name, options, ideal", COSTS)
def test_passes_are_as_few_as_the_mathematics_allows(
    name: str, options: dict[str, Any], ideal: tuple[int, int, int]
):
    network = Counted()
    run = fit(ALL[name](classify(network), sgd(), **options), batches())
    count = network.count
    assert (count.forward, count.to_input, count.to_weight) == ideal
    assert run.module.cost == ideal


@pytest.mark.parametrize("name, options, ideal", [c for c in COSTS if c[0] != "free_at"])
@pytest.mark.parametrize("kind", [MBPP, VBPP])
def test_a_proximal_penalty_costs_one_forward_pass_where_the_clean_answer_is_at_hand(
    name: str, options: dict[str, Any], ideal: tuple[int, int, int], kind: type[MBPP | VBPP]
):
    network = Counted()
    fit(ALL[name](classify(network), sgd(proximal=kind(weight=1.0)), **options), batches())
    forward, to_input, to_weight = ideal
    more = 0 if name in WITH_CLEAN_ANSWER else 1  # a training pass at the clean input
    count = network.count
    assert count.forward == forward + more + 1
    assert (count.to_input, count.to_weight) == (to_input + more, to_weight + more)


# Told by its operations alone: what differentiates twice, or runs some layers only.
FLOPS: list[tuple[str, dict[str, Any], tuple[float, float, float]]] = [
    *COSTS,
    ("infobert", {"steps": 3, "alpha": 0.0}, (3, 6, 3)),  # without its critic
    ("rdrop", {}, (2, 2, 2)),
    ("input_gradient_penalty", {}, (1, 3, 2)),
    ("llr", {"steps": 0}, (2, 4, 3)),
    ("llr", {"steps": 2}, (4, 6, 3)),
    ("yopo", {"rounds": 1, "inner_steps": 1}, (2, 2, 1)),
    ("yopo", {"rounds": 2, "inner_steps": 3}, (3 + 4 * 0.5, 3 + 4 * 0.5, 2)),
    ("yopo_pmp", {"rounds": 1, "inner_steps": 1}, (1.5, 1.5, 1)),
    ("yopo_pmp", {"rounds": 2, "inner_steps": 3}, (2 + 6 * 0.5, 2 + 6 * 0.5, 2)),
]


@cache
def operations(name: str, *options: tuple[str, Any]) -> int:
    """Of a second batch: what is done once per training is left out."""
    counts = []
    for steps in (1, 2):
        module = ALL[name](classify(bert(layers=2, width=128)), sgd(), **dict(options))
        with FlopCounterMode(display=False) as counter:
            fit(module, batches(steps))
        counts.append(counter.get_total_flops())
    return counts[1] - counts[0]


@pytest.mark.parametrize("name, options, ideal", FLOPS)
def test_floating_point_operations_are_those_of_the_passes(
    name: str, options: dict[str, Any], ideal: tuple[float, float, float]
):
    # Attention's own products have two gradients and no weights: a few percent more than 2 to 1.
    ratio = operations(name, *options.items()) / operations("finetune")
    assert ratio == pytest.approx(sum(ideal) / 3, rel=0.03)
    assert ALL[name](classify(bert(layers=2)), sgd(), **options).cost == ideal


@pytest.mark.parametrize("method", [FGM, FreeLB, InputGradientPenalty])
def test_a_misspelt_option_is_refused_with_a_task_too(method: type[FineTuner]):
    unknown: dict[str, Any] = {"radios": 5.0}
    with pytest.raises(ValueError, match=f"radios: {method.__name__} has no such option; it has "):
        method(classify(bert()), sgd(), **unknown)
    with pytest.raises(ValueError, match=f"radios: {method.__name__} has no such option; it has "):
        method(**unknown)


def test_what_needs_each_examples_own_gradient_is_refused_where_there_is_none():
    with pytest.raises(ValueError, match="Contrastive compares the examples of a batch"):
        LLR(Contrastive(bert()), sgd())
    task = classify(MeanPool(norm=True))
    with pytest.raises(ValueError, match="through batch norms depends on the others"):
        LLR(task, sgd())
    task.network.eval()
    LLR(task, sgd())
