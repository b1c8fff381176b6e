"""Whether more or less of a metric is better."""

COSTS = ("loss", "mse", "calibration_error", "perplexity")
"""Metrics of which less is better."""


def less(metric: str) -> bool:
    """Whether less of it is better.

    >>> less("val/loss"), less("test/accuracy"), less("attack/textfooler")
    (True, False, False)
    """
    return metric.partition("/")[2] in COSTS
