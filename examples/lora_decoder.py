"""LoRA on a small decoder, with noise on its words (NEFTune): only the adapters train.

python examples/lora_decoder.py
"""

import peft
import torch
from digits import loaders
from transformers import LlamaConfig, LlamaForCausalLM

from lit_adv.methods.noise import Noise


def main() -> None:
    """Learn to go on with rows of pixels, as one would with instructions."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=18, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    lora = peft.LoraConfig(task_type="CAUSAL_LM", r=8, target_modules="all-linear")
    model = peft.get_peft_model(LlamaForCausalLM(config), lora)  # pyright: ignore
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=5e-3)

    method = Noise(alpha=5.0).on(model)
    train, _ = loaders(words=True)
    for ids, _ in train:
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
        method.step(lambda batch=batch: model(**batch).loss, batch)
        optimizer.step()
        optimizer.zero_grad()
    print(f"loss {method.batch_loss:.3f}, noise {method.logged['perturbation/norm']:.3f}")
    assert all(weight.grad is None for weight in model.parameters() if not weight.requires_grad)


if __name__ == "__main__":
    main()
