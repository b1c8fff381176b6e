"""Scikit-learn's digits: 1,797 real images of 8 x 8 pixels, which the examples train on."""

import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset


def loaders(batch_size: int = 64, *, words: bool = False) -> tuple[DataLoader, DataLoader]:
    """For training and testing: images in [0, 1], [batch, 1, 8, 8], or rows of 64 grey levels.

    Args:
        batch_size: images per batch.
        words: each pixel is a token, 1 to 17.
    """
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)
    data = images.flatten(1).long() + 1 if words else images.unsqueeze(1) / 16
    whole = TensorDataset(data, torch.tensor(digits.target))
    seed = torch.Generator().manual_seed(0)
    train, test = torch.utils.data.random_split(whole, [1437, 360], seed)
    return DataLoader(train, batch_size, shuffle=True), DataLoader(test, 360)
