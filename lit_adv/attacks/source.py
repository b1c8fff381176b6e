"""Where a victim comes from: a run, a checkpoint, or a Hugging Face classifier's folder."""

from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lit_adv import checkpoint
from lit_adv.models import configured
from lit_adv.models.loading import loading
from lit_adv.models.model import Model

NETWORK = "task.network."
"""What a checkpoint's names of the network's weights begin with."""


@dataclass(kw_only=True)
class Source:
    """A victim on the host.

    Args:
        network: the classifier.
        tokenizer: its own.
    """

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load(path: Path) -> Source:
    """Read a victim.

    Args:
        path: folder of a run, checkpoint of one, or folder with a Hugging Face classifier.

    Raises:
        ValueError: it is none of these, or cannot be read.
    """
    if path.suffix == ".ckpt":
        return _of_checkpoint(path)
    if (path / "config.json").is_file():
        return _exported(path)
    if (path / "export" / "config.json").is_file():
        return _exported(path / "export")
    raise ValueError(
        f"{path}: no victim: wanted a run's folder (with export/), a checkpoint (.ckpt), or a "
        "Hugging Face classifier's folder (with config.json)"
    )


def weights(path: Path) -> Path:
    """The file or folder that a victim's weights are in."""
    if path.suffix == ".ckpt":
        return path
    folder = path if (path / "config.json").is_file() else path / "export"
    whole = folder / "model.safetensors"
    return whole if whole.is_file() else folder


def configuration(path: Path) -> DictConfig | None:
    """That of the run a victim comes from, if it is known."""
    if path.suffix == ".ckpt":
        return DictConfig(checkpoint.load(path)["hyper_parameters"])
    for folder in (path, path.parent):
        if (folder / "config.yaml").is_file():
            loaded = OmegaConf.load(folder / "config.yaml")
            return loaded if isinstance(loaded, DictConfig) and "data" in loaded else None
    return None


def _exported(path: Path) -> Source:
    with loading(f"{path}: no classifier that can be loaded"):
        network, report = AutoModelForSequenceClassification.from_pretrained(
            path, use_safetensors=True, dtype="float32", output_loading_info=True
        )
        if report["missing_keys"]:
            raise ValueError(f"it lacks {min(report['missing_keys'])}: no classifier was trained")
        tokenizer = AutoTokenizer.from_pretrained(path)
    return Source(network=network, tokenizer=tokenizer)


def _of_checkpoint(path: Path) -> Source:
    loaded = checkpoint.load(path)
    cfg = DictConfig(loaded["hyper_parameters"])
    if "model" not in cfg or "data" not in cfg:
        raise ValueError(f"{path}: says nothing of its model and data; give its run's export/")
    data = configured.load(cfg)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.seed)  # adapters belong to the weights that the run began with
        model = configured.build(cfg, data.splits)
    if not isinstance(model, Model):
        raise ValueError(f"{path}: a run on images; attacks exchange words")
    weights = {
        name.removeprefix(NETWORK): weight
        for name, weight in loaded["state_dict"].items()
        if name.startswith(NETWORK)
    }
    model.network.load_state_dict(weights)
    return Source(network=model.network, tokenizer=model.tokenizer)
