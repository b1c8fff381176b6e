"""A pretrained network, by its name on the hub or by its folder."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoTokenizer

from lit_adv import padding, regions
from lit_adv.data.splits import Splits
from lit_adv.direction import sees_ahead
from lit_adv.kinds.labels import kind_of
from lit_adv.models.loading import loading
from lit_adv.models.mlm_correction import correct
from lit_adv.models.model import Model, of_texts
from lit_adv.tasks.classification import HeadInit


def build(
    splits: Splits,
    *,
    name: str,
    package: str | None = None,
    trust_remote_code: bool = False,
    compile: bool = False,
    gradient_checkpointing: bool = False,
    at: str | None = None,
    special_tokens: str = "perturb",
    head_init: HeadInit = "random",
    drop_token: float = 0.0,
    mlm_correction: bool = False,
) -> Model:
    """Whatever `AutoModelFor...` of the task loads, from safetensors only, with a new head.

    Args:
        splits: whose classes the head has.
        name: folder, or name on the hub (which is asked only if the files are not cached).
        package: folder inside an installed Python package, used instead of `name` where it exists.
        trust_remote_code: run code that comes with the model; never unless asked.
        compile: the layers, by torch.compile.
        gradient_checkpointing: recompute the layers' activations instead of keeping them.
        at: name of the module whose output is perturbed; None asks the network.
        special_tokens: `perturb` or `keep` clean.
        head_init: of the last layer, `random` or `closed_form`; see Classification.
        drop_token: chance of each word to be left out of a training batch, in [0, 1).
        mlm_correction: each word's vector becomes its mean under the masking of pretraining.

    Raises:
        ValueError: the data are images, or the model or its tokenizer cannot be loaded, or was not
            trained by masking.
    """
    splits = of_texts(splits, "pretrained")
    kind = kind_of(splits)
    architecture: Any = getattr(
        transformers, f"AutoModelFor{kind.architecture}" if kind.architecture else "AutoModel"
    )
    source = packaged(package) or name
    with loading(f"model.name={name}: cannot be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
        network = architecture.from_pretrained(
            source,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            ignore_mismatched_sizes=True,
            dtype="float32",
            **kind.sizes(splits),
        )

    if kind.architecture == "CausalLM" and sees_ahead(network):
        raise ValueError(
            f"model.name={name}: it sees the words behind a word, which it would have to predict; "
            "choose a decoder for task=causal_lm"
        )
    if not kind.architecture and network.config.is_encoder_decoder:
        raise ValueError(
            f"model.name={name}: has a decoder, whose words task={kind.name} does not have; choose "
            "an encoder"
        )
    padding.agree(network, tokenizer)
    if kind.architecture != "CausalLM":  # what that exports goes on with a text at its right end
        tokenizer.padding_side = padding.side(network)
    if mlm_correction:
        correct(network, tokenizer)
    regions.prepare(network, compile=compile, gradient_checkpointing=gradient_checkpointing)
    return Model(
        network=network,
        tokenizer=tokenizer,
        at=at,
        special_tokens=special_tokens,
        head_init=head_init,
        drop_token=drop_token,
        adapters=kind.adapters,
        new_head=kind.new_head,
    )


def packaged(folder: str | None) -> str | None:
    """Path of a folder inside an installed Python package, if there is one."""
    if folder is None:
        return None
    package, _, rest = folder.partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / rest
    return str(path) if path.is_dir() else None
