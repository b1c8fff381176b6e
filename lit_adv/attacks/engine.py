"""The engine: hundreds of attacks at once, whose questions are answered together.

An attack on one text is a generator: it yields a `Request`, receives one answer per item, and
returns its result. So it reads like its paper's pseudo-code and knows nothing of batches. In every
round the engine gathers what all attacks wait for, asks each distinct question once, and hands back
the answers.
"""

from collections.abc import Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from lit_adv.ranges import whole

T = TypeVar("T")
K = TypeVar("K")


class Oracle(Protocol):
    """Whoever answers: a victim, a sentence encoder, a masked language model, a tagger."""

    def keys(self, items: Sequence[Any]) -> list[Any]:
        """What the answers depend on, hashable: items with one key have one answer."""
        ...

    def answer(self, keys: Sequence[Any]) -> Sequence[Any]:
        """The answer to each of these distinct keys."""
        ...


@dataclass(frozen=True)
class Request:
    """What an attack waits for: the answer of the oracle of this name to each item."""

    oracle: str
    items: Sequence[Any]


Steps: TypeAlias = Generator[Request, list[Any], T]
"""An attack, or part of one, that ends with a T."""


class _Attack(Generic[K, T]):
    def __init__(self, key: K, steps: Steps[T]) -> None:
        self.key, self.steps = key, steps
        self.request = Request("", ())
        self.outcome: T | Exception
        self.ended = False

    def go_on(self, answers: list[Any] | None) -> None:
        """To the next question, or to the end."""
        try:
            self.request = self.steps.send(answers)  # pyright: ignore
        except StopIteration as end:
            self.outcome, self.ended = end.value, True
        except Exception as error:  # one odd text does not end the other 999 attacks
            self.outcome, self.ended = error, True


class Engine:
    """Runs attacks side by side.

    What an attack is told does not depend on the others nor on how many there are, up to the
    rounding of batches of other shapes.

    Args:
        oracles: by the names that requests call them; two names may be one oracle's.
        concurrency: attacks at once.
        remember: answers of each oracle that are kept, the oldest forgotten first.
    """

    def __init__(
        self,
        oracles: Mapping[str, Oracle],
        *,
        concurrency: int = 256,
        remember: int = 2**17,
    ) -> None:
        whole(1, "concurrency", concurrency)
        self.oracles = oracles
        self.concurrency = concurrency
        self.remember = remember
        self.asked = dict.fromkeys(oracles, 0)
        """Items that attacks have asked each oracle for."""
        self.answered = dict.fromkeys(oracles, 0)
        """Distinct questions among them that the oracle had to answer."""
        self._known: dict[int, dict[Hashable, Any]] = {id(o): {} for o in oracles.values()}

    def run(self, attacks: Iterable[tuple[K, Steps[T]]]) -> Iterator[tuple[K, T | Exception]]:
        """The result of each attack, in the order they end; an attack that failed gives its error.

        Args:
            attacks: with whatever names them.
        """
        source = iter(attacks)
        waiting: list[_Attack[K, T]] = []
        while True:
            started = [
                _Attack(key, steps)
                for key, steps in islice(source, self.concurrency - len(waiting))
            ]
            for attack in started:
                attack.go_on(None)
            waiting += started
            if not waiting:
                return
            for name in self.oracles:
                served = [a for a in waiting if not a.ended and a.request.oracle == name]
                if served:
                    answers = self._ask(name, [attack.request.items for attack in served])
                    for attack, answer in zip(served, answers, strict=True):
                        attack.go_on(answer)
            for attack in waiting:
                if attack.ended:
                    yield attack.key, attack.outcome
                elif attack.request.oracle not in self.oracles:
                    raise KeyError(f"no oracle named {attack.request.oracle}")
            waiting = [attack for attack in waiting if not attack.ended]

    def _ask(self, name: str, groups: Sequence[Sequence[Any]]) -> list[list[Any]]:
        """The answers to each group of items: all that is new asked in one go."""
        oracle = self.oracles[name]
        known = self._known[id(oracle)]
        items = [item for group in groups for item in group]
        keys = oracle.keys(items)
        new = [key for key in dict.fromkeys(keys) if key not in known]
        if new:
            known.update(zip(new, oracle.answer(new), strict=True))
        self.asked[name] += len(items)
        self.answered[name] += len(new)

        answers = iter([known[key] for key in keys])
        handed = [[next(answers) for _ in group] for group in groups]
        for key in list(islice(known, max(0, len(known) - self.remember))):
            del known[key]
        return handed
