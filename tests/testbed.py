"""Small networks, batches, and training runs that keep what passes by."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace, new_class
from typing import Any, NamedTuple, TypeAlias, cast

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from lit_adv.descent import Descent, Schedule
from lit_adv.finetuner import FineTuner
from lit_adv.methods.fgm import FGM
from lit_adv.methods.fgsm import FGSM
from lit_adv.methods.finetune import FineTune
from lit_adv.methods.free_at import FreeAT
from lit_adv.methods.freelb import FreeLB
from lit_adv.methods.gaussian import Gaussian
from lit_adv.methods.infobert import InfoBERT
from lit_adv.methods.input_gradient_penalty import InputGradientPenalty
from lit_adv.methods.llr import LLR
from lit_adv.methods.noise import Noise
from lit_adv.methods.pgd import PGD
from lit_adv.methods.r3f import R3F
from lit_adv.methods.rdrop import RDrop
from lit_adv.methods.smart import SMART
from lit_adv.methods.tavat import TAVAT
from lit_adv.methods.vat import VAT
from lit_adv.methods.yopo import YOPO
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.task import Batch, Task

Tensors: TypeAlias = dict[str, Tensor]

WORDS = 30

# ---- networks ------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What a Hugging Face model answers."""

    logits: Tensor


class MeanPool(nn.Module):
    """`z = W mean_t(e_t) + b` over the real tokens, whose gradients have a closed form.

    Args:
        labels: number of logits.
        width: of the word embeddings.
        dropout: on the word embeddings.
        bend: the words pass a layer with tanh first, so that the gradient depends on the input.
        norm: the mean passes a batch norm.
        leak: padding is pooled as well, so that it has a gradient.
    """

    def __init__(
        self,
        labels: int = 2,
        width: int = 4,
        dropout: float = 0.0,
        bend: bool = False,
        norm: bool = False,
        leak: bool = False,
    ) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.words = nn.Embedding(WORDS, width)
        self.dropout = nn.Dropout(dropout)
        self.bend = nn.Linear(width, width) if bend else None
        self.norm = nn.BatchNorm1d(width) if norm else None
        self.head = nn.Linear(width, labels)
        self.leak = leak
        nn.init.normal_(self.head.weight)
        self.double()

    def get_input_embeddings(self) -> nn.Module:
        return self.words

    @property
    def base_model(self) -> nn.Module:
        """What answers with hidden states, as in models of transformers."""
        return self.dropout

    @property
    def config(self) -> SimpleNamespace:
        """The width of these."""
        return SimpleNamespace(hidden_size=self.words.embedding_dim)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Answer:
        assert attention_mask is not None
        words = self.words(input_ids) if inputs_embeds is None else inputs_embeds
        real = torch.ones_like(attention_mask) if self.leak else attention_mask
        hidden = self.dropout(words)
        hidden = hidden if self.bend is None else self.bend(hidden).tanh()
        mean = (hidden * real.unsqueeze(-1)).sum(1) / real.sum(1, keepdim=True)
        return Answer(self.head(mean if self.norm is None else self.norm(mean)))


def bert(dropout: float = 0.0, layers: int = 1, width: int = 16) -> BertForSequenceClassification:
    """A BERT with random weights large enough for its losses to differ."""
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=width,
        max_position_embeddings=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.3,
    )
    return BertForSequenceClassification(config).double()


def classify(network: nn.Module, **options: Any) -> Classification:
    """Two classes."""
    return Classification(network, num_labels=2, **options)


class Floodable(Classification):
    """Two classes, and flood levels of any height."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network, num_labels=2)

    @property
    def chance_loss(self) -> float:
        return math.inf


# ---- data ----------------------------------------------------------------------------------------


def batches(count: int = 1, size: int = 4, tokens: int = 7, seed: int = 0) -> list[Tensors]:
    """Random texts of two labels: the first of a batch has no padding, the others may."""
    stream = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        lengths = torch.randint(3, tokens + 1, (size, 1), generator=stream)
        lengths[0] = tokens
        places = torch.arange(tokens)
        real, ends = places < lengths, (places == 0) | (places == lengths - 1)
        words = torch.randint(5, WORDS, (size, tokens), generator=stream)
        made.append(
            {
                "input_ids": words * real,
                "attention_mask": real.long(),
                "special_tokens_mask": ends.long(),
                "labels": torch.randint(0, 2, (size,), generator=stream),
            }
        )
    return made


def cut(batch: Tensors, *sizes: int) -> list[Tensors]:
    """The same examples in smaller batches."""
    parts = {name: value.split(list(sizes)) for name, value in batch.items()}
    return [{name: parts[name][i] for name in parts} for i in range(len(sizes))]


class Stream:
    """Batches in their order; a DataLoader would draw a seed from dropout's random stream."""

    def __init__(self, batches: Sequence[Tensors]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Tensors]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


# ---- methods -------------------------------------------------------------------------------------


@dataclass
class Pass:
    """One pass through the network."""

    delta: Tensor | None
    logits: Tensor
    losses: Tensor
    trains: bool

    @property
    def moved(self) -> Tensor:
        """Its perturbation, which is known to be there."""
        assert self.delta is not None
        return self.delta


class Recorder(FineTuner):
    """Mixed into a method: keeps every pass."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.seen: list[Pass] = []
        self._alive = True  # what perturbs nothing is not stopped

    def logits(self, batch: Batch, delta: Tensor | None = None) -> Tensor:
        logits = super().logits(batch, delta)
        trains = any(weight.requires_grad for weight in self.task.parameters())
        losses = self.task.losses(logits, batch).detach()
        copy = None if delta is None else delta.detach().clone()
        self.seen.append(Pass(copy, logits.detach().clone(), losses, trains))
        return logits

    @property
    def deltas(self) -> list[Tensor]:
        """The perturbations of all passes that had one."""
        return [seen.delta for seen in self.seen if seen.delta is not None]


def recording(method: type[FineTuner], *mixins: type[FineTuner]) -> type[Recorder]:
    """The method, keeping every pass."""
    return cast("type[Recorder]", new_class(method.__name__, (*mixins, Recorder, method)))


Method: TypeAlias = Callable[..., Recorder]

FINETUNE: Method = recording(FineTune)

# Every hyperparameter is written out: presets and defaults may change.
PERTURBING: dict[str, Method] = {
    "fgm": partial(recording(FGM), radius=0.5, weight=1.0),
    "pgd_a": partial(
        recording(PGD), form="A", steps=3, step_size=0.3, radius=0.5, init_size=0.4, norm="l2"
    ),
    "pgd_b": partial(
        recording(PGD), form="B", steps=3, step_size=0.3, radius=0.5, init_size=0.4, norm="l2"
    ),
    "freelb": partial(
        recording(FreeLB), steps=4, step_size=0.3, radius=0.5, init_size=0.4, norm="l2"
    ),
    "smart": partial(
        recording(SMART),
        weight=2.0,
        steps=2,
        noise_std=0.05,
        step_size=0.3,
        radius=0.5,
        norm="l2",
        per="example",
        update="project",
        detach_target=False,
    ),
}


def yopo(task: Task, descent: Descent, **options: Any) -> Recorder:
    """YOPO, split where the network can be: after a layer, or after its words."""
    names = dict(task.network.named_modules())
    split = next(n for n in ("bert.encoder.layer.0", "layer", "bend", "dropout") if n in names)
    sizes = {"rounds": 2, "inner_steps": 2, "step_size": 0.3, "radius": 0.5, "init_size": 0.4}
    return recording(YOPO)(task, descent, **{"split": split, **sizes, **options})


PERTURBING |= {
    "noise": partial(recording(Noise), alpha=0.5),
    "gaussian": partial(recording(Gaussian), std=0.1),
    "r3f": partial(recording(R3F), weight=2.0, noise="normal", size=0.1),
    "fgsm": partial(recording(FGSM), radius=0.1, clean=1.0, adversarial=1.0),
    "fgm_table": partial(recording(FGM), radius=0.5, weight=1.0, at="table"),
    "freelb_pp": partial(
        recording(FreeLB), steps=4, step_size=0.3, radius=math.inf, init_size=0.4, norm="l2"
    ),
    "yopo": partial(yopo, form="gd"),
    "yopo_pmp": partial(yopo, form="pmp"),
    "tavat": partial(recording(TAVAT), steps=3, step_size=0.3, radius=0.5, init_size=0.4),
    "vat": partial(recording(VAT), weight=2.0, steps=2, xi=0.1, radius=0.5),
    "llr": partial(
        recording(LLR),
        weight=2.0,
        slope_weight=1.0,
        steps=2,
        step_size=0.3,
        radius=0.5,
        norm="l2",
    ),
    "infobert": partial(
        recording(InfoBERT),
        steps=3,
        step_size=0.3,
        radius=0.5,
        init_size=0.4,
        alpha=0.1,
        beta=0.1,
        low=0.5,
        high=0.9,
    ),
}

METHODS: dict[str, Method] = {
    "finetune": FINETUNE,
    **PERTURBING,
    "rdrop": partial(recording(RDrop), alpha=2.0, dropout=None),
    "input_gradient_penalty": partial(recording(InputGradientPenalty), epsilon=2.0),
}

# Apart from the others: it takes several optimizer steps per batch.
FREE: Method = partial(
    recording(FreeAT), replays=3, step_size=0.3, radius=0.5, init_size=0.4, norm="l2"
)

# The same with no perturbation at all, whatever the radius.
STILL: dict[str, dict[str, Any]] = {
    "finetune": {},
    "fgm": {"radius": 0.0},
    "pgd_a": {"step_size": 0.0, "init_size": 0.0},
    "pgd_b": {"step_size": 0.0, "init_size": 0.0},
    "freelb": {"step_size": 0.0, "init_size": 0.0},
    "smart": {"step_size": 0.0, "noise_std": 0.0},
    "noise": {"alpha": 0.0},
    "gaussian": {"std": 0.0},
    "r3f": {"size": 0.0},
    "fgsm": {"radius": 0.0},
    "fgm_table": {"radius": 0.0},
    "freelb_pp": {"step_size": 0.0, "init_size": 0.0},
    "yopo": {"step_size": 0.0, "init_size": 0.0},
    "yopo_pmp": {"step_size": 0.0, "init_size": 0.0},
    "tavat": {"step_size": 0.0, "init_size": 0.0},
    "vat": {"radius": 0.0, "xi": 1e-300},  # a probe that rounding swallows
    "llr": {"radius": 0.0},
    "infobert": {"step_size": 0.0, "init_size": 0.0},
    "free_at": {"step_size": 0.0, "init_size": 0.0},
}


def sgd(lr: float = 0.1, **options: Any) -> Descent:
    """Plain gradient descent at a constant rate."""
    constant = Schedule(name="constant", warmup=0.0)
    return Descent(
        **{"optimizer": partial(torch.optim.SGD, lr=lr), "schedule": constant, **options}
    )


# ---- runs ----------------------------------------------------------------------------------------

with_spearman = pytest.mark.filterwarnings("ignore:Metric `SpearmanCorrcoef` will save all targets")
"""For tests of regression: what torchmetrics says of its metrics."""


@contextmanager
def without_lightnings_own_warnings() -> Iterator[None]:
    """Warnings are errors; these two come up in every small run, whatever the module."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)")
        warnings.filterwarnings("ignore", r".*`validation_step` but have no `val_dataloader`")
        yield


class Run(L.Callback):
    """A training, with the gradient (before clipping) and learning rate of each optimizer step."""

    def __init__(self, module: Recorder) -> None:
        self.module = module
        self.gradients: list[Tensors] = []
        self.rates: list[float] = []
        self.logs: list[dict[str, float]] = []
        self.trainer: L.Trainer

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self.gradients.append(
            {
                name: weight.grad.clone()
                for name, weight in self.module.task.named_parameters()
                if weight.grad is not None
            }
        )
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.logs.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    @property
    def weights(self) -> Tensors:
        """The weights as they are now."""
        return weights(self.module.task)


def fit(
    module: Recorder,
    data: Sequence[Tensors],
    *,
    epochs: int = 1,
    seed: int = 0,
    callbacks: Sequence[L.Callback] = (),
    validation: Sequence[Tensors] | None = None,
    resume: str | None = None,
    **options: Any,
) -> Run:
    """Train on the CPU, by the real Trainer, in float64 unless `precision` says otherwise."""
    run = Run(module)
    settings = {
        "max_epochs": epochs,
        "precision": "64-true",
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
    }
    torch.manual_seed(seed)
    with without_lightnings_own_warnings():
        trainer = L.Trainer(**{**settings, **options}, callbacks=[run, *callbacks])
        held_out = None if validation is None else Stream(validation)
        trainer.fit(module, Stream(data), held_out, ckpt_path=resume)
    run.trainer = trainer
    return run


def gradient(
    method: Method, network: nn.Module, data: Sequence[Tensors], **options: Any
) -> Tensors:
    """The method's gradient of one optimizer step over these micro-batches."""
    descent = sgd(lr=0.0, accumulate_grad_batches=len(data))
    run = fit(method(classify(network), descent, **options), data)
    assert len(run.gradients) == 1
    return run.gradients[0]


# ---- by the definition ---------------------------------------------------------------------------


def answer(network: nn.Module, batch: Batch, delta: Tensor | None = None) -> Tensor:
    """`f(e + delta)` by way of `inputs_embeds`: the path that lit_adv does not take."""
    words = network.get_submodule(
        "bert.embeddings.word_embeddings" if hasattr(network, "bert") else "words"
    )
    perturbed = words(batch["input_ids"])
    if delta is not None:
        perturbed = perturbed + delta
    return network(inputs_embeds=perturbed, attention_mask=batch["attention_mask"]).logits


def loss(network: nn.Module, batch: Batch, delta: Tensor | None = None) -> Tensor:
    """Cross-entropy of every example at `e + delta`."""
    return F.cross_entropy(answer(network, batch, delta), batch["labels"], reduction="none")


def ascent(objective: Callable[[Tensor], Tensor], delta: Tensor) -> Tensor:
    """Gradient of the sum over examples with respect to delta."""
    delta = delta.detach().clone().requires_grad_()
    return torch.autograd.grad(objective(delta).sum(), delta)[0]


def norms(delta: Tensor) -> Tensor:
    """Euclidean length of each example's perturbation."""
    return delta.flatten(1).norm(dim=1)


def weights(network: nn.Module) -> Tensors:
    """A copy of all weights."""
    return {name: weight.detach().clone() for name, weight in network.named_parameters()}


def derivative(objective: Tensor, network: nn.Module) -> Tensors:
    """Gradient of this number, by the names that the weights have in a task around the network."""
    named = dict(network.named_parameters())
    grads = torch.autograd.grad(objective, list(named.values()))
    return {f"network.{name}": grad for name, grad in zip(named, grads, strict=True)}


def scaled(tensors: Mapping[str, Tensor], factor: float) -> Tensors:
    """Each tensor times the factor."""
    return {name: factor * value for name, value in tensors.items()}


# ---- comparisons ---------------------------------------------------------------------------------

same = partial(torch.testing.assert_close, rtol=0, atol=0)
"""Equal to the last bit."""

close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11)
"""Equal but for the rounding of float64."""


def of_size(delta: Tensor, size: float) -> None:
    """Each example's perturbation has this Euclidean length."""
    lengths = norms(delta)
    close(lengths, torch.full_like(lengths, size))
