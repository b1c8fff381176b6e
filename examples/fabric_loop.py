"""A loop of one's own, by Fabric, with FGM and flooding: `method.step` stands for `backward`.

python examples/fabric_loop.py
"""

import torch
import torch.nn.functional as F
from digits import loaders
from lightning.fabric import Fabric
from torch import nn

from lit_adv.descent import Descent
from lit_adv.flood.fixed import Fixed
from lit_adv.methods.fgm import FGM


def main() -> None:
    """Train and test."""
    torch.manual_seed(0)
    fabric = Fabric(accelerator="cpu", devices=1)
    train, test = fabric.setup_dataloaders(*loaders())
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    net, optimizer = fabric.setup(net, torch.optim.Adam(net.parameters(), lr=1e-3))

    method = FGM(radius=0.5, descent=Descent(flood=Fixed(b=0.05))).on(
        net, at="input", backward=fabric.backward
    )
    for epoch in range(3):
        for batch in train:
            # Called once per pass, with the images perturbed.
            method.step(lambda batch: F.cross_entropy(net(batch[0]), batch[1]), batch)
            optimizer.step()
            optimizer.zero_grad()
        perturbed = method.logged["loss/adversarial"]
        print(f"epoch {epoch}: loss {method.batch_loss:.3f}, perturbed {perturbed:.3f}")

    with torch.no_grad():
        images, labels = next(iter(test))
        print(f"test accuracy {(net(images).argmax(1) == labels).float().mean():.3f}")


if __name__ == "__main__":
    main()
