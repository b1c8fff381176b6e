"""Student's t: the quantile that a confidence interval needs, without scipy."""

import math


def quantile(freedom: int, confidence: float = 0.95) -> float:
    """The t that a variable of so many degrees of freedom stays within, on both sides of zero.

    P(|T| <= t) = confidence, solved by bisection over the angle atan(t / sqrt(freedom)), whose
    probability is a finite sum (Abramowitz and Stegun, 26.7.3 and 26.7.4), to the last digits.

    Args:
        freedom: degrees of freedom, a whole number of at least 1.
        confidence: probability, between 0 and 1.

    >>> round(quantile(2), 4)
    4.3027
    """
    assert freedom >= 1 and 0 < confidence < 1
    low, high = 0.0, math.pi / 2
    for _ in range(80):  # halves it below the distance of neighbouring floats
        middle = (low + high) / 2
        if _within(middle, freedom) < confidence:
            low = middle
        else:
            high = middle
    return math.tan((low + high) / 2) * math.sqrt(freedom)


def _within(angle: float, freedom: int) -> float:
    """P(|T| <= tan(angle) sqrt(freedom))."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2 == 1
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
