"""AccuracyUnderAttack: the accuracy under an attack on words, measured during training."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from transformers import PreTrainedTokenizerBase

from lit_adv import processes, sharding
from lit_adv.attacks.kit import Kit
from lit_adv.attacks.resources import Resources
from lit_adv.attacks.session import Session
from lit_adv.attacks.settings import Settings
from lit_adv.attacks.trial import Recipe
from lit_adv.data.datamodule import TextData
from lit_adv.ranges import whole
from lit_adv.standstill import evaluating


class AccuracyUnderAttack(L.Callback):
    """Attacks a fixed sample of the validation split; logs `attack/NAME`, a share of the sample.

    At the first validation, after every n-th epoch's and whenever no training runs; in between the
    last value is logged again, so that ModelCheckpoint or EarlyStopping may monitor it. Processes
    share the sample. Training is not touched: no random numbers are drawn, modes are put back.
    Where no encoder is named, similarity is by the network as it is then, which moves: name one to
    compare epochs.

    Args:
        recipe: how texts are attacked, for example `TextFooler()`.
        name: in the log.
        n: examples, the same at every measurement.
        every_n_epochs: measure so often.
        resources: of the attack, for example `Resources(neighbours="counter-fitted-vectors.txt")`.
        seed: of the sample and of random choices.
        network: name of the part of the module that is attacked, a Hugging Face classifier.
        data: texts and labels; None = the trainer's datamodule.
        tokenizer: None = the datamodule's.
        settings: further ones of `attacks.settings.Settings`.

    Raises:
        ValueError: a size below 1; when training starts: a resource, the texts or the network are
            missing, or the weights are sharded.
    """

    def __init__(
        self,
        recipe: Recipe,
        name: str = "attacked",
        n: int = 100,
        every_n_epochs: int = 1,
        resources: Resources | None = None,
        seed: int = 0,
        network: str = "task.network",
        data: TextData | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        **settings: Any,
    ) -> None:
        self.recipe, self.name = recipe, name
        self.every_n_epochs = whole(1, "callbacks: every_n_epochs", every_n_epochs)
        self._settings = Settings(n=n, seed=seed, split="validation", calibrate=False, **settings)
        self._resources = resources or Resources()
        self._network, self._data, self._tokenizer = network, data, tokenizer
        self._session: Session | None = None
        self._kit: Kit | None = None
        self._last: float | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last = None  # of a training before this one
        if sharding.dealt_out(pl_module):
            raise ValueError(
                "callbacks: AccuracyUnderAttack: each process asks the network other questions, "
                "which sharded weights do not allow"
            )
        data = self._data or getattr(trainer, "datamodule", None)
        if not isinstance(data, TextData):
            raise ValueError("callbacks: AccuracyUnderAttack needs texts: data=TextData(...)")
        tokenizer = self._tokenizer or data.tokenizer
        if tokenizer is None:
            raise ValueError("callbacks: AccuracyUnderAttack needs tokenizer=...")
        network = pl_module.get_submodule(self._network)
        with evaluating(network):
            self._session = Session(network, tokenizer, data, self._settings, self._resources)
            self._kit = self._session.kit(self.recipe)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._session is None or trainer.sanity_checking:
            return
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0
        # After the training the weights are those of a checkpoint.
        if self._last is None or due or trainer.state.fn != TrainerFn.FITTING:
            self._last = self.measure()
        pl_module.log(f"attack/{self.name}", self._last, rank_zero_only=False)

    def measure(self) -> float:
        """The share of the sample that is right before the attack and after it."""
        assert self._session is not None and self._kit is not None
        rows = self._session.rows()[processes.rank() :: processes.count()]
        examples = self._session.examples(rows)
        network: nn.Module = self._session.reader.network
        with evaluating(network):
            records = list(self._session.attack(examples, self.recipe, self._kit))
        outcomes = [record["outcome"] for record in records]
        counted = len(outcomes) - outcomes.count("skipped")
        device = self._session.reader.device
        counts = torch.tensor([outcomes.count("failed"), counted], device=device)
        right, total = processes.add_up(counts).tolist()
        return right / total if total else float("nan")
