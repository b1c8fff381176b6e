"""Small random networks of the families that people fine-tune, and what each is fed with."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
import transformers as t
from torch import Tensor, nn

WIDTH = 16
SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "num_labels": 3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
BERT = SIZES | {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 24,
}
DECODER = BERT | {"num_key_value_heads": 2, "head_dim": 8}
DEBERTA = BERT | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
T5 = SIZES | {"d_model": WIDTH, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
BART = SIZES | {
    "d_model": WIDTH,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 24,
}
VIT: dict[str, Any] = {
    "num_labels": 3,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 8,
    "patch_size": 4,
}


def _classifier(family: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        config = getattr(t, f"{family}Config")(**options)
        return getattr(t, f"{family}ForSequenceClassification")(config)

    return build


def _language_model() -> nn.Module:
    return t.GPT2LMHeadModel(t.GPT2Config(**SIZES, n_embd=WIDTH, n_layer=2, n_head=2))


def _vit() -> nn.Module:
    return t.ViTForImageClassification(t.ViTConfig(**VIT))


def _frozen() -> nn.Module:
    network: Any = _classifier("Bert", **BERT)()
    network.bert.embeddings.requires_grad_(False)
    return network


def _adapted(base: Callable[[], nn.Module] | None = None) -> nn.Module:
    import peft

    base = base or _classifier("Llama", **DECODER)
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["q_proj", "v_proj"])
    network: Any = peft.get_peft_model(base(), config)  # pyright: ignore[reportArgumentType]
    for name, weight in network.named_parameters():
        if "lora_B" in name:  # which is zero at first, so that the other half has no gradient
            nn.init.normal_(weight, std=0.5)
    return network


def _quantised() -> nn.Module:
    """The linear layers of 8 bits, frozen, as `load_in_8bit` has them, and LoRA on top."""
    bnb: Any = import_module("bitsandbytes")

    def base() -> nn.Module:
        network = _classifier("Llama", **DECODER)()
        for layer in network.model.layers.modules():  # pyright: ignore
            for name, child in list(layer.named_children()):
                if isinstance(child, nn.Linear):
                    sizes = child.in_features, child.out_features
                    small = bnb.nn.Linear8bitLt(*sizes, bias=False, has_fp16_weights=False)  # pyright: ignore
                    small.load_state_dict(child.state_dict())
                    setattr(layer, name, small.to("cpu"))
        return network

    return _adapted(base)


@dataclass(frozen=True)
class Family:
    """One line of the table.

    Args:
        build: a network with random weights.
        needs: a package that is not always there.
        exact: whether it computes in float64.
        special: what is special about it.
    """

    build: Callable[[], nn.Module]
    needs: str = "torch"
    exact: bool = True
    special: str = ""


FAMILIES: dict[str, Family] = {
    "BERT": Family(_classifier("Bert", **BERT)),
    "RoBERTa": Family(_classifier("Roberta", **BERT)),
    "XLM-R": Family(_classifier("XLMRoberta", **BERT)),
    "DeBERTa": Family(_classifier("Deberta", **DEBERTA)),
    "DeBERTa-v2": Family(_classifier("DebertaV2", **DEBERTA)),
    "DeBERTa-v3": Family(
        _classifier(
            "DebertaV2", **DEBERTA, position_biased_input=False, share_att_key=True,
            norm_rel_ebd="layer_norm", position_buckets=8, max_relative_positions=-1,
        )
    ),
    "DistilBERT": Family(
        _classifier("DistilBert", **SIZES, dim=WIDTH, n_layers=2, n_heads=2, hidden_dim=24)
    ),
    "ALBERT": Family(_classifier("Albert", **BERT, embedding_size=6)),
    "ELECTRA": Family(_classifier("Electra", **BERT, embedding_size=6)),
    "ModernBERT": Family(_classifier("ModernBert", **BERT, cls_token_id=1, sep_token_id=2)),
    "T5": Family(
        _classifier("T5", **T5, decoder_start_token_id=0), special="encoder's words"
    ),
    "BART": Family(_classifier("Bart", **BART), special="encoder's words"),
    "GPT-2": Family(_classifier("GPT2", **SIZES, n_embd=WIDTH, n_layer=2, n_head=2)),
    "Llama": Family(_classifier("Llama", **DECODER)),
    "Mistral": Family(_classifier("Mistral", **DECODER)),
    "Qwen2": Family(_classifier("Qwen2", **DECODER)),
    "Qwen3": Family(_classifier("Qwen3", **DECODER)),
    "Gemma": Family(_classifier("Gemma", **DECODER)),
    # Its rows of nothing but padding are no numbers in float64, by its own kernel.
    "Gemma 2": Family(_classifier("Gemma2", **DECODER), exact=False),
    "Gemma 3": Family(_classifier("Gemma3Text", **DECODER)),
    "ViT": Family(_vit, special="patches"),
    "GPT-2, tied head": Family(_language_model, special="the head keeps the table as it is"),
    "BERT, frozen words": Family(_frozen, special="the words have no gradient"),
    "Llama, LoRA": Family(_adapted, needs="peft", special="adapters train"),
    "Llama, 8 bits, LoRA": Family(
        _quantised, needs="bitsandbytes", exact=False, special="adapters train"
    ),
}  # fmt: skip


def network(family: Family) -> Any:
    """One with weights large enough for its losses to differ, in evaluation mode: no dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = family.build().eval()
        if family.exact:
            built.double()
            for name, weight in built.named_parameters():
                if weight.ndim > 1 and "norm" not in name.lower():
                    nn.init.normal_(weight, std=0.3)
    return built


LENGTHS = (6, 4)


def batch(network: Any, left: bool = False) -> dict[str, Tensor]:
    """Two texts, of which one is padded at this side; images for ViT."""
    stream = torch.Generator().manual_seed(1)
    dtype = next(network.parameters()).dtype
    if hasattr(network, "vit"):
        images = torch.rand(2, 3, 8, 8, generator=stream).to(dtype)
        return {"pixel_values": images, "labels": torch.tensor([0, 2])}
    ids = torch.randint(5, 40, (2, 6), generator=stream)
    pad, eos = network.config.pad_token_id, network.config.eos_token_id
    mask = torch.arange(6) < torch.tensor(LENGTHS).unsqueeze(1)
    ids[mask & (torch.arange(6) == torch.tensor(LENGTHS).unsqueeze(1) - 1)] = eos
    ids = ids.masked_fill(~mask, pad)
    labels = torch.tensor([0, 2])
    if "LMHead" in type(network).__name__:
        labels = ids.masked_fill(~mask, -100)
    texts = {"input_ids": ids, "attention_mask": mask.long(), "labels": labels}
    if left:
        shift = [0, 6 - LENGTHS[1]]
        texts = {
            name: value
            if value.ndim == 1
            else torch.stack([row.roll(n) for row, n in zip(value, shift, strict=True)])
            for name, value in texts.items()
        }
    return texts
