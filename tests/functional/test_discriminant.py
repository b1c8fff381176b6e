"""The closed-form head: scikit-learn's discriminant analysis, and laws that it must obey."""

import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from testbed import close, same
from torch import Tensor

from lit_adv.functional.discriminant import Discriminant

CLASSES, WIDTH = 3, 5


def drawn(count: int = 200, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Gaussian classes of different sizes, with a covariance of its own."""
    stream = torch.Generator().manual_seed(seed)
    mix = torch.randn(WIDTH, WIDTH, generator=stream, dtype=torch.float64)
    labels = torch.multinomial(torch.tensor([0.6, 0.3, 0.1]), count, True, generator=stream)
    means = torch.randn(CLASSES, WIDTH, generator=stream, dtype=torch.float64)
    noise = torch.randn(count, WIDTH, generator=stream, dtype=torch.float64)
    return means[labels] + noise @ mix, labels


def of(features: Tensor, labels: Tensor, classes: int = CLASSES) -> Discriminant:
    made = Discriminant(classes, features.shape[1])
    made.update(features, labels)
    return made


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0])
def test_it_is_linear_discriminant_analysis(shrinkage: float):
    x, y = drawn()
    weight, bias = of(x, y).solve(shrinkage)
    # Not scikit-learn's own shrinkage: it rescales the features first.
    sums = of(x, y)
    shares, means = sums.count / len(x), sums.sum / sums.count.unsqueeze(1)
    within = [x[y == c] - means[c] for c in range(CLASSES)]
    pooled = torch.stack([part.T @ part for part in within]).sum(0) / len(x)
    eye = torch.eye(WIDTH, dtype=torch.float64)
    pooled = (1 - shrinkage) * pooled + shrinkage * torch.trace(pooled) / WIDTH * eye
    close(weight @ pooled, means)
    close(bias, shares.log() - (means @ torch.linalg.inv(pooled) * means).sum(1) / 2)
    if not shrinkage:
        known = LinearDiscriminantAnalysis(solver="lsqr").fit(x.numpy(), y.numpy())
        expected = torch.from_numpy(known.predict_proba(x.numpy()))
        close((x @ weight.T + bias).softmax(1), expected)


def test_parts_of_the_data_add_up():
    x, y = drawn()
    whole, parts = of(x, y), of(x[:50], y[:50])
    parts.merge(of(x[50:], y[50:]))
    for mine, theirs in zip(parts.solve(), whole.solve(), strict=True):
        close(mine, theirs)


def test_answers_do_not_depend_on_the_features_units():
    x, y = drawn()
    stream = torch.Generator().manual_seed(1)
    turn = torch.randn(WIDTH, WIDTH, generator=stream, dtype=torch.float64)
    moved = x @ turn + 3
    answers = [z @ w.T + b for z in (x, moved) for w, b in [of(z, y).solve()]]
    close(answers[0].softmax(1), answers[1].softmax(1))


def test_with_many_examples_it_is_bayes_rule():
    """Two classes at -1 and 1, of variance 4 and equal shares: log odds 2 x / 4."""
    stream = torch.Generator().manual_seed(0)
    y = torch.arange(200_000) % 2
    x = (2.0 * y - 1 + 2 * torch.randn(200_000, generator=stream)).unsqueeze(1)
    weight, bias = of(x, y, 2).solve()
    assert float(weight[1] - weight[0]) == pytest.approx(2 / 4, abs=0.01)
    assert float(bias[1] - bias[0]) == pytest.approx(0.0, abs=0.01)


def test_a_class_that_never_comes_is_improbable_and_finite():
    x, y = drawn()
    weight, bias = of(x, y, CLASSES + 1).solve()
    assert bias.isfinite().all() and not weight[CLASSES].any()
    same(bias[CLASSES], torch.tensor(0.5 / len(x), dtype=torch.float64).log())


def test_what_has_no_inverse_asks_for_shrinkage():
    x, y = drawn(4)
    with pytest.raises(ValueError, match="give a shrinkage above 0"):
        of(torch.cat([x, x], 1), y).solve()
    weight, bias = of(torch.cat([x, x], 1), y).solve(0.1)
    assert weight.isfinite().all() and bias.isfinite().all()
    with pytest.raises(ValueError, match="there were none"):
        Discriminant(2, 3).solve()
