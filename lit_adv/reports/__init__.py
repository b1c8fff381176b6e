"""Reports of sweeps: `write` reads the folders of runs, finished or not, and says what came out."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_adv.reports.report import write as write


def __getattr__(name: str) -> Any:
    # What only reads runs, as each job of a sweep does, need not load what draws.
    if name == "write":
        from lit_adv.reports.report import write

        return write
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
