"""What SMART's constants do to a fine-tuned network: the table of docs/smart.md.

python train.py model=minilm data=local data.path=DATA data.limit=2000 hydra.run.dir=RUN
python -m benchmarks.smart_constants RUN/export DATA
"""

import argparse
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_adv.data.local import Local
from lit_adv.functional import ball
from lit_adv.methods.smart import SMART
from lit_adv.models import pretrained

PAPER: dict[str, Any] = {"noise_std": 1e-5, "step_size": 1e-3, "norm": "soft-inf"}
SETTINGS: dict[str, dict[str, Any]] = {
    "smart/paper": {**PAPER, "radius": 1e-5},
    "paper's step as radius, per token": {**PAPER, "radius": 1e-3, "per": "token"},
    "smart/reference": {**PAPER, "radius": 1.0, "per": "token", "update": "renormalise"},
    "default": {},
    **{
        f"l2, radius {radius}, noise {noise:g}": {
            "noise_std": noise, "step_size": radius, "radius": radius,
        }
        for radius, noise in (
            (0.1, 1e-3), (0.3, 1e-5), (0.3, 1e-4), (0.3, 1e-3), (0.3, 1e-2), (1.0, 1e-3),
        )
    },
}  # fmt: skip


class Probe(SMART):
    """SMART's search, without its training."""

    def search(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The start and the perturbation found."""
        mask, clean = self.task.mask(batch), self.logits(batch).detach()
        start = ball.gaussian(
            mask, self.task.width, self.noise_std, torch.Generator().manual_seed(0)
        )
        delta = start
        for _ in range(self.steps):
            leaf = delta.clone()
            grad = self.ascent(batch, leaf, lambda p: self.task.divergence(p, clean, batch))
            delta = self.climb(batch, leaf.detach(), grad)
        return start, delta

    @torch.no_grad()
    def change(self, batch: dict[str, Tensor], delta: Tensor) -> float:
        """Mean divergence of the answers at the perturbed and the clean embeddings, in nats."""
        answers = self.logits(batch, delta), self.logits(batch)
        return self.task.divergence(*answers, batch).mean().item()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", help="folder of a fine-tuned model")
    parser.add_argument("data", help="folder of its data")
    arguments = parser.parse_args()

    data = Local(path=arguments.data, eval_batch_size=64)
    model = pretrained.build(data.splits, name=arguments.model)
    data.tokenise(model.tokenizer)
    task = model.task(data.splits).eval()
    batches = list(data.val_dataloader())
    batch = batches[len(batches) // 2]

    print(
        "| setting | length (L2) | R | random | cosine with the noise |\n|---|---:|---:|---:|---:|"
    )
    for name, options in SETTINGS.items():
        probe = Probe(task, **options).eval()
        start, delta = probe.search(batch)
        length = ball.lengths(delta).mean().item()
        mask, noise = task.mask(batch), torch.Generator().manual_seed(1)
        random = length * ball.unit(ball.gaussian(mask, task.width, 1.0, noise))
        cosine = F.cosine_similarity(start.flatten(1), delta.flatten(1)).mean().item()
        figures = (length, probe.change(batch, delta), probe.change(batch, random))
        print(f"| {name} | {' | '.join(f'{x:.2g}' for x in figures)} | {cosine:.2f} |", flush=True)


if __name__ == "__main__":
    main()
