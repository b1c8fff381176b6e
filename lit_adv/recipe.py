"""Recipe: a method and its settings, before there is anything to train."""

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from typing_extensions import Unpack

from lit_adv import config

if TYPE_CHECKING:
    from lit_adv.adoption.alone import Alone, Options

LATER: Any = None
"""As a task: none yet, which makes a Recipe."""


class Recipe:
    """A method without its task, as `FGM(radius=0.5)` makes it: whoever trains brings the rest.

    Args:
        method: its class.
        descent: the flood, update, mask and proximal term beside it; None = none of them.
        options: of the class.

    Raises:
        ValueError: the method has no such option.
    """

    def __init__(self, method: type, descent: Any = None, **options: Any) -> None:
        self.method, self.descent, self.options = method, descent, options
        known = [name for name in config.signature(method) if name not in config.GIVEN_IN_CODE]
        check_options(method, options, known)

    def on(self, network: Any, **options: Unpack["Options"]) -> "Alone":
        """The method at work on a network, in a loop that somebody else runs; see Alone."""
        from lit_adv.adoption.alone import Alone

        return Alone(self, network, **options)

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{self.method.__name__}({options})"


class Method(type):
    """Class of method classes: called without a task, they give a Recipe."""

    if not TYPE_CHECKING:

        @property
        def __signature__(cls) -> inspect.Signature:
            _, *others = inspect.signature(cls.__init__).parameters.values()
            return inspect.Signature(others)

        def __call__(cls, *args: Any, **options: Any) -> Any:
            if args or "task" in options:
                return super().__call__(*args, **options)
            return Recipe(cls, **options)


def check_options(method: type, options: Iterable[str], known: Iterable[str]) -> None:
    """Refuse options that a method does not know.

    Raises:
        ValueError: the first of them, and all that its class takes.
    """
    for name in options:
        if name not in known:
            taken = [each for each in config.signature(method) if each not in config.GIVEN_IN_CODE]
            raise ValueError(
                f"{name}: {method.__name__} has no such option; it has {', '.join(taken or known)}"
            )
