"""Interruption: several processes that are told to end do so after the same batch."""

import signal
import threading

import torch
import torch.distributed as dist


class Interruption:
    """Whether any process has got SIGTERM, as all of them agree.

    Lightning's own handler sends the news by the group that reduces gradients, in the middle of
    whatever that is at, and each process stops when it hears of it: they wait for each other for
    ever. Here the news goes by a group of its own on the host, one batch behind, so that no device
    is waited for.

    Raises:
        ValueError: PyTorch has been built without gloo.
    """

    def __init__(self) -> None:
        if not dist.is_gloo_available():
            raise ValueError("trainer.strategy: processes agree by gloo, which this PyTorch lacks")
        self._group = dist.new_group(backend="gloo")
        self._told = False
        self._asked: tuple[dist.Work, torch.Tensor] | None = None
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._remember)  # Lightning puts back what was before

    def _remember(self, *_: object) -> None:
        self._told = True

    def come(self) -> bool:
        """Whether the training ends here; all processes ask after each batch."""
        come = False
        if self._asked is not None:
            work, told = self._asked
            work.wait()
            come = bool(told)
        told = torch.tensor(int(self._told))
        work = dist.all_reduce(told, dist.ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None
        self._asked = work, told
        return come
