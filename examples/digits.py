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
    pixels, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    data = pixels.long() + 1 if words else pixels.float().view(-1, 1, 8, 8) / 16
    whole = TensorDataset(data, labels)
    seed = torch.Generator().manual_seed(0)
    train, test = torch.utils.data.random_split(whole, [1437, 360], seed)
    return DataLoader(train, batch_size, shuffle=True), DataLoader(test, 360)
