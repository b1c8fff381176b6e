"""The Trainer of transformers with FreeLB: another class, and one more argument.

python examples/huggingface_trainer.py
"""

import tempfile

import torch
from digits import loaders
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments

from lit_adv.huggingface import AdversarialTrainer
from lit_adv.methods.freelb import FreeLB


def main() -> None:
    """Train and evaluate; the texts are the pixels of digits, row by row."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=18, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64, initializer_range=0.1,
    )  # fmt: skip
    config.num_labels = 10
    train, test = loaders(words=True)
    with tempfile.TemporaryDirectory() as folder:
        trainer = AdversarialTrainer(
            model=BertForSequenceClassification(config),
            args=TrainingArguments(
                output_dir=folder, num_train_epochs=4, per_device_train_batch_size=32,
                gradient_accumulation_steps=2, learning_rate=1e-2, use_cpu=True, report_to=[],
                disable_tqdm=True, save_strategy="no", seed=0,
            ),
            train_dataset=[{"input_ids": x, "labels": y} for x, y in train.dataset],
            eval_dataset=[{"input_ids": x, "labels": y} for x, y in test.dataset],
            method=FreeLB(steps=2, radius=0.1),
        )  # fmt: skip
        trainer.train()
        print(f"evaluation loss {trainer.evaluate()['eval_loss']:.3f}")


if __name__ == "__main__":
    main()
