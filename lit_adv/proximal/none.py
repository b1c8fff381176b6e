"""Nothing holds the weights."""

from lit_adv.proximal.proximal import Proximal


class NoProximal(Proximal):
    """No proximal penalty, no reference weights."""

    def __init__(self) -> None:
        super().__init__(weight=0.0)
