"""Metrics of somebody's module, which see one pass of several."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torchmetrics import Metric


@contextmanager
def metrics_kept(metrics: Sequence[Metric]) -> Iterator[None]:
    """What these have gathered is at the block's end what it was at its beginning."""
    states = [_state(metric) for metric in metrics]
    try:
        yield
    finally:
        for metric, state in zip(metrics, states, strict=True):
            for name, value in state.items():
                setattr(metric, name, value)


def _state(metric: Metric) -> dict[str, Any]:
    """What a metric has gathered so far, and how often: a pass that does not count changes both."""
    state = {name: _copied(getattr(metric, name)) for name in metric._defaults}
    counters = ("_update_count", "_update_called", "_computed", "_forward_cache")
    return {**state, **{k: metric.__dict__[k] for k in counters if k in metric.__dict__}}


def _copied(value: Tensor | Sequence[Tensor]) -> Any:
    return value.clone() if isinstance(value, Tensor) else list(value)
