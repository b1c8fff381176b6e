"""Data and model of a configuration: rows of the kind that is asked for, adapters if some are."""

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from lit_adv.data.batched import Batched
from lit_adv.models.image_model import ImageModel
from lit_adv.models.model import Model


def build(cfg: DictConfig, splits: Any) -> Model | ImageModel:
    """What `model` and `peft` describe, for these data.

    Args:
        cfg: of a training; those of earlier versions say nothing of peft.
        splits: whose classes the head has.
    """
    model: Model | ImageModel = instantiate(cfg.model)(splits)
    if cfg.get("peft") is not None:
        instantiate(cfg.peft).adapt(model)
    return model


def load(cfg: DictConfig) -> Batched[Any]:
    """What `data` and `task` describe.

    Args:
        cfg: of a training; those of earlier versions say nothing of a task.
    """
    data: Any = instantiate(cfg.data)
    if cfg.get("task") is not None:
        data.kind = instantiate(cfg.task)
    return data
