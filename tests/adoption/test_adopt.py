"""`lit_adv.adopt`: of a module and of its Trainer nothing changes but the gradients."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from adoption.theirs import Theirs, loss_of
from lightning.pytorch.callbacks import ModelCheckpoint
from testbed import Stream, Tensors, batches, bert, close, same, without_lightnings_own_warnings
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from lit_adv import adopt
from lit_adv.adoption.adopted import Adopted
from lit_adv.descent import Descent
from lit_adv.flood.fixed import Fixed
from lit_adv.methods.fgm import FGM
from lit_adv.methods.tavat import TAVAT
from lit_adv.proximal.mbpp import MBPP
from lit_adv.updates.sam import SAM


class Rich(Theirs):
    """With what people's modules have: hyperparameters, metrics, a schedule, hooks, outputs."""

    def __init__(self, rate: float = 0.1, dropout: float = 0.1) -> None:
        super().__init__(bert(dropout=dropout), rate)
        self.save_hyperparameters()
        self.accuracy = MulticlassAccuracy(2)
        self.mean = MeanMetric()
        self.calls: list[str] = []

    def training_step(self, batch: Tensors, batch_idx: int) -> Any:
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        logits = self.network(**inputs).logits
        loss = F.cross_entropy(logits, batch["labels"])
        self.accuracy(logits, batch["labels"])
        self.mean.update(loss)
        self.log_dict({"train/loss": loss, "train/accuracy": self.accuracy}, on_epoch=True)
        return {"loss": loss, "logits": logits.detach()}

    def validation_step(self, batch: Tensors, batch_idx: int) -> None:
        self.log("val/loss", loss_of(self.network, batch))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.calls.append("step")

    def on_before_zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
        self.calls.append("zero")

    def configure_optimizers(self) -> Any:
        optimizer = Adam(self.parameters(), lr=self.rate)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step", "frequency": 1},
        }


class Watch(L.Callback):
    """What a callback gets to see."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.rates: list[float] = []
        self.norms: list[float] = []

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.losses.append(float(outputs["loss"]))
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        grads = [w.grad for w in pl_module.parameters() if w.grad is not None]
        self.norms.append(float(torch.stack([grad.norm() for grad in grads]).norm()))


def train(
    module: L.LightningModule,
    data: Sequence[Any],
    *callbacks: L.Callback,
    resume: Path | None = None,
    **options: Any,
) -> L.Trainer:
    torch.manual_seed(0)
    settings = {
        "accelerator": "cpu",
        "precision": "64-true",
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
    }
    with without_lightnings_own_warnings():
        trainer = L.Trainer(**{**settings, **options}, callbacks=list(callbacks))
        trainer.fit(module, Stream(data), ckpt_path=resume)
    return trainer


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulate_grad_batches": 2},
        {"gradient_clip_val": 0.1},
        {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
        {"precision": "bf16-mixed"},
        {"max_epochs": 2},
    ],
)
def test_plain_fine_tuning_is_their_own_training_to_the_last_bit(options: dict[str, Any]):
    """Weights, logs, metrics, rates, hooks, and what callbacks see."""
    ends = []
    for adopted in (False, True):
        module, watch = Rich(), Watch()
        if adopted:
            module = adopt(module, "finetune")
        trainer = train(module, batches(4), watch, **options)
        ends.append((module, watch, trainer))
    (theirs, seen, trainer), (ours, also, other) = ends
    same(ours.state_dict(), theirs.state_dict())
    assert (also.losses, also.rates, also.norms) == (seen.losses, seen.rates, seen.norms)
    assert ours.calls == theirs.calls and len(seen.norms) == trainer.global_step
    logged = {k: v for k, v in other.callback_metrics.items() if k in trainer.callback_metrics}
    same(logged, trainer.callback_metrics)
    assert other.global_step == trainer.global_step
    close(ours.mean.compute(), theirs.mean.compute())


@pytest.mark.parametrize("method", ["fgm", "pgd", "freelb", "tavat", "noise", "free_at"])
def test_logs_metrics_and_outputs_are_of_the_first_pass_that_trains(method: str):
    module = adopt(Rich(dropout=0.0), method)
    trainer = train(module, batches(1))
    # Updated once, over one batch, whatever the passes.
    value = module.mean.compute()
    assert float(value) == pytest.approx(float(trainer.callback_metrics["train/loss_epoch"]))
    assert module.mean.update_count == 1
    if method == "fgm":
        with torch.no_grad():
            assert float(value) == pytest.approx(float(loss_of(bert(), batches(1)[0])))


def test_the_module_stays_what_it_was(tmp_path: Path):
    module = Rich()
    before = set(module.state_dict()), dict(module.hparams), str(module), module.__class__
    assert adopt(module, FGM, radius=0.5) is module
    assert isinstance(module, Rich) and isinstance(module, Adopted)
    assert type(module).__name__ == "Rich" and type(module).__module__ == Rich.__module__
    assert (set(module.state_dict()), dict(module.hparams), str(module)) == before[:3]
    data = batches(2)
    trainer = train(module, data)
    trainer.save_checkpoint(tmp_path / "new.ckpt")
    train(plain := Rich(), data).save_checkpoint(tmp_path / "old.ckpt")
    # New ones load where this library is not, old ones here.
    again = before[3].load_from_checkpoint(tmp_path / "new.ckpt", weights_only=True)
    same(again.state_dict(), module.state_dict())
    adopted = adopt(Rich(), "fgm")
    with without_lightnings_own_warnings():
        train(adopted, data, resume=tmp_path / "old.ckpt", max_epochs=1)
    same(adopted.state_dict(), plain.state_dict())
    copied = copy.deepcopy(module)
    ends = [train(each, data).lightning_module.state_dict() for each in (copied, module)]
    same(*ends)


@pytest.mark.parametrize("method", ["freelb", "tavat"])
def test_a_resumed_training_remembers_what_an_uninterrupted_one_does(method: str, tmp_path: Path):
    """Its noise, the words' perturbations, and the weights that it is held near."""

    def made() -> Rich:
        held = MBPP(beta=0.5, switch=1.0)
        return adopt(Rich(dropout=0.0), method, proximal=held, logits="network.classifier")

    data, whole, rest = batches(3), made(), made()
    train(whole, data, max_epochs=2)
    train(made(), data).save_checkpoint(tmp_path / "half.ckpt")
    train(rest, data, max_epochs=2, resume=tmp_path / "half.ckpt")
    same(rest.state_dict(), whole.state_dict())


def test_a_subclass_with_the_mixin_is_an_adopted_module():
    class Robust(Adopted, Rich):
        adversary = {"method": "freelb", "radius": 0.5, "update": SAM(0.1), "flood": Fixed(0.3)}

    robust, adopted = Robust(), adopt(Rich(), **Robust.adversary)
    for module in (robust, adopted):
        train(module, batches(2))
    same(robust.state_dict(), adopted.state_dict())


class Vision(L.LightningModule):
    """Images in tuples, a small convolutional net, a scheduler dict."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
        ).double()

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self.net(images), labels)

    def configure_optimizers(self) -> Any:
        optimizer = SGD(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler}}


def images(count: int = 1) -> list[tuple[Tensor, Tensor]]:
    stream = torch.Generator().manual_seed(0)
    drawn = [torch.rand(5, 1, 8, 8, generator=stream, dtype=torch.float64) for _ in range(count)]
    return [(x, torch.randint(0, 3, (5,), generator=stream)) for x in drawn]


@pytest.mark.parametrize("at", ["input", "net.0", "net.4"])
def test_images_and_layers_are_perturbed_as_by_hand(at: str):
    """FGM with one step of length 0.5 for each image, by its definition."""
    module, (batch,) = adopt(Vision(), "fgm", at=at, radius=0.5), images()
    train(module, [batch])

    net, (x, y) = Vision().net, batch
    count, parts = {"input": 0, "net.0": 1, "net.4": 5}[at], list(net.children())
    before, behind = nn.Sequential(*parts[:count]), nn.Sequential(*parts[count:])
    clean = before(x)
    delta = torch.zeros_like(clean, requires_grad=True)
    loss = F.cross_entropy(behind(clean + delta), y)
    (grad,) = torch.autograd.grad(loss, delta, retain_graph=True)
    lengths = grad.flatten(1).norm(dim=1).view(-1, *[1] * (grad.ndim - 1))
    loss = loss + F.cross_entropy(behind(before(x) + 0.5 * grad / lengths), y)
    weights = dict(net.named_parameters())
    grads = torch.autograd.grad(loss, list(weights.values()))
    stepped = {k: w - 0.1 * g for (k, w), g in zip(weights.items(), grads, strict=True)}
    close(dict(module.net.named_parameters()), stepped)


class Bag(L.LightningModule):
    """Texts in tuples without a mask, and a table that knows its padding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.words = nn.Embedding(12, 4, padding_idx=0).double()
        self.head = nn.Linear(4, 2).double()
        self.added: list[Tensor] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        ids, labels = batch
        vectors = self.words(input=ids)
        self.added.append((vectors - self.words.weight[ids]).detach())
        return F.cross_entropy(self.head(vectors.mean(1)), labels)

    def configure_optimizers(self) -> SGD:
        return SGD(self.parameters(), lr=0.1)


def test_padding_stays_clean_where_nothing_but_the_table_knows_of_it():
    ids = torch.tensor([[5, 6, 7, 0], [8, 0, 0, 0], [9, 10, 0, 11]])
    module = adopt(Bag(), "fgm", radius=0.5)
    train(module, [(ids, torch.tensor([0, 1, 1]))])
    clean, perturbed = module.added
    assert not clean.any() and not perturbed[ids == 0].any()
    close(perturbed.flatten(1).norm(dim=1), torch.full((3,), 0.5, dtype=torch.float64))


class Named(Bag):
    """The same texts in a dictionary."""

    def training_step(self, batch: Tensors, batch_idx: int) -> Tensor:  # pyright: ignore
        return super().training_step((batch["input_ids"], batch["labels"]), batch_idx)


@pytest.mark.parametrize("method", [TAVAT(radius=0.5, step_size=0.2), FGM(radius=0.5, at="table")])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_words_are_what_the_table_is_asked_for(method: Any, accumulate: int):
    ids = torch.tensor([[[5, 6, 7, 0], [8, 0, 0, 0], [9, 5, 0, 11]], [[4, 6, 6, 5]] * 3])
    texts = [(rows, torch.tensor([0, 1, 1])) for rows in ids]
    named = [{"input_ids": x, "labels": y} for x, y in texts]
    modules = adopt(Bag(), method), adopt(Named(), method)
    for module, data in zip(modules, (texts, named), strict=True):
        train(module, data, max_epochs=2, accumulate_grad_batches=accumulate)
    one, other = (dict(module.named_parameters()) for module in modules)
    same(one, other)
    assert not torch.equal(one["words.weight"], Bag().words.weight)


def test_words_of_several_texts_are_those_that_the_network_makes_one_batch_of():
    class Choices(Named):
        def training_step(self, batch: Tensors, batch_idx: int) -> Tensor:
            ids = batch["input_ids"].flatten(0, 1)
            return Bag.training_step(self, (ids, batch["labels"].repeat_interleave(2)), batch_idx)

    ids = torch.tensor([[[5, 6, 7, 0], [8, 0, 0, 0]], [[9, 5, 0, 11], [4, 6, 6, 5]]])
    labels = torch.tensor([0, 1])
    flat = {"input_ids": ids.flatten(0, 1), "labels": labels.repeat_interleave(2)}
    method = FGM(radius=0.5, at="table")
    modules = adopt(Choices(), method), adopt(Named(), method)
    for module, batch in zip(modules, ({"input_ids": ids, "labels": labels}, flat), strict=True):
        train(module, [batch])
    same(*(dict(module.named_parameters()) for module in modules))


def test_a_method_that_goes_by_words_asks_for_the_table_that_has_them():
    with pytest.raises(
        ValueError, match=r"^at=net\.0: this method goes by words, \[batch, tokens\], and"
    ):
        train(adopt(Vision(), FGM(at="table"), at="net.0"), images())


def test_a_loss_of_few_examples_and_one_of_many_perturb_alike():
    """A mean stands for each example: penalties of raw gradients know how many there are."""
    (batch,) = images()
    module = adopt(Vision(), "input_gradient_penalty", at="input", epsilon=2.0)
    train(module, [batch])
    net, (x, y) = Vision().net, batch
    x = x.clone().requires_grad_()
    losses = F.cross_entropy(net(x), y, reduction="none")
    (grad,) = torch.autograd.grad(losses.sum(), x, create_graph=True)
    loss = (losses + 2.0 / 2 * grad.flatten(1).square().sum(1)).mean()
    weights = dict(net.named_parameters())
    grads = torch.autograd.grad(loss, list(weights.values()))
    stepped = {k: w - 0.1 * g for (k, w), g in zip(weights.items(), grads, strict=True)}
    close(dict(module.net.named_parameters()), stepped)


def test_weights_that_a_callback_thaws_train_from_the_next_epoch_on():
    class Thaws(L.Callback):
        def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            pl_module.requires_grad_(trainer.current_epoch > 0)
            pl_module.network.classifier.requires_grad_(True)  # pyright: ignore

    theirs = Rich()
    train(theirs, batches(2), Thaws(), max_epochs=2)
    plain = adopt(Rich(), "finetune")
    train(plain, batches(2), Thaws(), max_epochs=2)
    same(plain.state_dict(), theirs.state_dict())

    module = adopt(Rich(), "fgm", radius=0.1)
    before = module.network.bert.embeddings.word_embeddings.weight.detach().clone()  # pyright: ignore
    train(module, batches(2), Thaws(), max_epochs=2)
    assert not torch.equal(module.network.bert.embeddings.word_embeddings.weight, before)  # pyright: ignore


class Backward(Rich):
    def backward(self, loss: Tensor, *args: Any, **options: Any) -> None:
        (3 * loss).backward()


def manual(module: L.LightningModule) -> L.LightningModule:
    module.automatic_optimization = False
    return module


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: adopt(Rich(), "fgmm"), "method=fgmm: no such method; did you mean fgm?"),
        (lambda: adopt(Rich(), "fgm", radios=1), "radios: FGM has no such option; it has radius"),
        (lambda: adopt(Rich(), "sam", radios=1), "radios: sam has no such option; it has radius"),
        (lambda: adopt(Rich(), "fgm", update="sum"), "update=sum: there is no such; there are "),
        (lambda: adopt(Rich(), "smart"), "SMART: compares a network's answers, which a loss does"),
        (lambda: adopt(Rich(), "fgm", proximal="mbpp"), "proximal=MBPP: compares a network's"),
        (lambda: adopt(Rich(), "infobert"), "method=infobert: "),
        (lambda: adopt(Rich(), "fgm", flood="auto"), "flood=Auto: watches a training through"),
        (lambda: adopt(Rich(), "fgm", flood="half"), "flood=half: needs run=..."),
        (lambda: adopt(Rich(), "child_d"), "mask=ChildD: scores a task's examples before"),
        (lambda: adopt(Backward(), "fgm"), "Backward.backward: each pass goes backward by itself"),
        (lambda: adopt(manual(Rich()), "fgm"), "Rich.automatic_optimization=False: its training_"),
        (lambda: adopt(adopt(Rich(), "fgm"), "fgm"), "Rich: is adopted already"),
        (
            lambda: adopt(Vision(), "fgm"),
            "at=None: Vision does not name its token embeddings; set at to a module's name; "
            "embedding modules here: none; others: net.0, net.1, net.2, net.3, net.4; or at=input",
        ),
        (lambda: adopt(Vision(), "fgm", at="net.9"), "at=net.9: no such module; embedding mod"),
        (lambda: adopt(Vision(), "tavat", at="input"), "at=input: this method perturbs words"),
        (lambda: train(adopt(Rich(), "llr"), batches(1)), "LLR: goes by the loss of each example"),
        (lambda: train(adopt(Rich(), "fgm", flood="individual"), batches(1)), "flood=Individual"),
        (
            lambda: train(adopt(Rich(), "free_at"), batches(2), accumulate_grad_batches=2),
            "FreeAT: steps several times per batch",
        ),
    ],
)
def test_what_cannot_be_adopted_is_refused_with_what_to_do(make: Callable[[], Any], says: str):
    with pytest.raises(ValueError) as refused:
        make()
    assert str(refused.value).startswith(says)


@pytest.mark.parametrize("method, look", [("fgm", "; look at at"), ("rdrop", "; look at dropout")])
def test_what_perturbs_nothing_says_which_arguments_to_look_at(method: str, look: str):
    network = bert()
    torch.nn.init.zeros_(network.classifier.weight)
    options = {"logits": "network.classifier"} if method == "rdrop" else {}
    module = adopt(Theirs(network, rate=0.0), method, **options)
    with pytest.raises(ValueError, match="nothing was perturbed") as refused:
        train(module, batches(1))
    assert str(refused.value).endswith(look)


class Takes(Rich):
    """Takes the labels out of its batch."""

    def training_step(self, batch: Tensors, batch_idx: int) -> Any:
        labels = batch.pop("labels")
        loss = F.cross_entropy(self.network(**batch).logits, labels)
        self.log("train/loss", loss)
        return loss


@pytest.mark.parametrize("method", ["pgd", "sam"])
def test_a_training_step_may_take_things_out_of_its_batch(method: str):
    module, other = adopt(Takes(), method), adopt(Rich(), method)
    keys = ("input_ids", "attention_mask", "labels")
    data = [{key: batch[key] for key in keys} for batch in batches(2)]
    train(module, data)
    train(other, batches(2))
    same(dict(module.network.named_parameters()), dict(other.network.named_parameters()))
    assert all("labels" in batch for batch in data)


def test_a_module_of_an_adopted_ones_class_is_not_adopted(tmp_path: Path):
    """As `type(module).load_from_checkpoint` makes one."""
    module = adopt(Rich(), "fgm", radius=0.1)
    train(module, batches(1)).save_checkpoint(tmp_path / "x.ckpt")
    loaded = type(module).load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    with pytest.raises(ValueError, match=r"^Rich: made by the class of an adopted module, such as"):
        train(loaded, batches(1))
    assert adopt(loaded, "fgm", radius=0.1) is loaded and type(loaded) is type(module)
    with pytest.raises(ValueError, match="^Rich: is adopted already"):
        adopt(loaded, "fgm")
    again = Rich.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    for each in (loaded, adopt(again, "fgm", radius=0.1)):
        train(each, batches(1))
    same(loaded.state_dict(), again.state_dict())


def test_a_step_without_a_loss_is_refused():
    class Skips(Rich):
        def training_step(self, batch: Tensors, batch_idx: int) -> Any:
            return None

    with pytest.raises(ValueError, match=r"^Skips.training_step returned None: "):
        train(adopt(Skips(), "fgm"), batches(1))


def test_their_own_checkpoints_are_written_as_before(tmp_path: Path):
    module = adopt(Rich(), "fgm")
    kept = ModelCheckpoint(tmp_path, monitor="train/loss_epoch", save_last=True)
    train(module, batches(2), kept, enable_checkpointing=True)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["state_dict"].keys() == Rich().state_dict().keys()
    assert kept.best_model_score is not None


def test_a_mixin_behind_its_own_training_step_is_refused():
    with pytest.raises(TypeError, match=r"^Hidden: its own training_step would hide that of the"):

        class Hidden(Adopted, Theirs):  # pyright: ignore[reportUnusedClass]
            def training_step(self, batch: Tensors, batch_idx: int) -> Any:
                return loss_of(self.network, batch)


def test_a_validation_step_may_call_the_training_step():
    class Lazy(Theirs):
        def validation_step(self, batch: Tensors, batch_idx: int) -> None:
            self.log("val/loss", self.training_step(batch, batch_idx))

    ends = []
    for module in (Lazy(bert()), adopt(Lazy(bert()), "finetune")):
        torch.manual_seed(0)
        with without_lightnings_own_warnings():
            trainer = L.Trainer(
                accelerator="cpu", precision="64-true", max_epochs=2, logger=False,
                enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            )  # fmt: skip
            trainer.fit(module, Stream(batches(2)), Stream(batches(1, seed=4)))
        ends.append((module.state_dict(), float(trainer.callback_metrics["val/loss"])))
    same(ends[1][0], ends[0][0])
    assert ends[1][1] == ends[0][1]


def test_a_second_look_passes_over_each_batch_with_its_own_number():
    numbers: list[int] = []

    class Counts(Rich):
        def training_step(self, batch: Tensors, batch_idx: int) -> Any:
            numbers.append(batch_idx)
            return super().training_step(batch, batch_idx)

    train(adopt(Counts(), SAM(0.1)), batches(3), accumulate_grad_batches=3)
    assert numbers == [0, 1, 2, 0, 1, 2]


def test_finding_a_shape_moves_no_statistics():
    for at in ("input", "net.0", "net.3"):
        module = adopt(Vision(), "fgm", at=at, radius=0.5)
        train(module, images(3))
        tracked = module.net[1].num_batches_tracked
        assert int(tracked) == 2 * 3, at  # pyright: ignore[reportArgumentType]


def test_weights_that_the_optimizer_does_not_step_count_for_nothing():
    """Their gradients are zeroed by nobody: SAM's displacement is that of the others alone."""

    class Head(Rich):
        def configure_optimizers(self) -> Any:
            return SGD(self.network.classifier.parameters(), lr=0.0)  # pyright: ignore

    class Norms(Watch):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            weight = pl_module.network.classifier.weight
            self.norms.append(float(weight.grad.norm()))

    watch = Norms()
    train(adopt(Head(dropout=0.0), "sam", radius=0.5), 4 * batches(1), watch)
    assert watch.norms == pytest.approx(4 * [watch.norms[0]])


def test_each_training_has_pieces_of_its_own():
    """What holds one module near its past knows nothing of another's, nor of a training before."""
    recipe = FGM(radius=0.1, descent=Descent(proximal=MBPP(beta=0.5)))
    one, other = (adopt(Rich(dropout=0.0), recipe, logits="network.classifier") for _ in range(2))
    train(one, batches(2))
    train(other, batches(2))
    same(one.state_dict(), other.state_dict())
    trainer = train(one, batches(1))
    assert float(trainer.callback_metrics["proximal/divergence"]) == pytest.approx(0, abs=1e-12)


def test_a_mask_that_fits_nothing_is_refused_and_one_of_a_sequence_of_numbers_holds():
    (x, y), real = images()[0], torch.ones(5, 8, dtype=torch.bool)
    real[:, 5:] = False

    class Rows(Vision):
        def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            seen.append(batch[0])
            return F.cross_entropy(self.net(batch[0].unsqueeze(1)), batch[1])

    seen: list[Tensor] = []
    train(adopt(Rows(), "fgm", at="input", tokens=lambda _: real), [(x.squeeze(1), y)])
    moved = seen[-1] - x.squeeze(1)
    assert not moved[~real].any() and moved[real].any()
    with pytest.raises(ValueError, match=r"^tokens: of shape \[5, 8\], where \[5, 1\] may be"):
        train(adopt(Vision(), "fgm", at="input", tokens=lambda _: real), [(x, y)])
