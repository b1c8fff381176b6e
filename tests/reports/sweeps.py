"""Small sweeps whose figures are known."""

from pathlib import Path
from typing import Any

from made import done, run, scores

LEVELS = [round(0.01 * k, 2) for k in range(51)]
SEEDS = (1, 2)
BEST = 0.14


def accuracy(b: float, seed: int) -> float:
    """On the validation split: best at 0.14; the second seed lies above the first one."""
    return 0.9 - (b - BEST) ** 2 + 0.01 * (seed - 1)


def losses(b: float) -> list[dict[str, Any]]:
    """Ten steps and two validations, with accordance that changes its sign."""
    rows: list[dict[str, Any]] = [{"step": s, "train/loss": max(b, 1 - 0.1 * s)} for s in range(10)]
    rows += [{"step": s, "val/loss": 0.8 - 0.05 * s} for s in (4, 9)]
    return [*rows, *({"step": s, "accordance/cross": 0.1 - 0.03 * s} for s in (4, 9))]


def flooded(folder: Path) -> Path:
    """51 levels and plain training, two seeds each; one run failed, one is at work."""
    count = 0
    for seed in SEEDS:
        at: dict[str, Any] = {"seed": seed, "overridden": ["flood", "flood.b", "seed"]}
        plain = 0.85 + 0.02 * (seed - 1)
        made = done(plain, plain - 0.01)
        run(folder / str(count), seed=seed, overridden=["seed"], rows=losses(0), **made)
        count += 1
        for b in LEVELS:
            options = {"flood.b": b, "flood.scope": "global"}
            value = accuracy(b, seed)
            last: dict[str, Any] = {"rows": losses(b), **done(value, value - 0.005)}
            if (b, seed) == (0.5, 2):
                last: dict[str, Any] = {"failure": "loss is not finite: nan <at> step 3"}
            elif (b, seed) == (0.49, 2):
                last: dict[str, Any] = {"rows": losses(b)[:3]}
            elif b == BEST:
                last["flooding"] = {"b": b, "step": 2}
            run(folder / str(count), {"flood": "fixed"}, options, **at, **last)
            count += 1
    return folder


def grid(folder: Path) -> Path:
    """Three learning rates against four levels, one cell without a run; loss is monitored."""
    for i, rate in enumerate((1e-5, 1e-4, 1e-3)):
        for k, b in enumerate((0.0, 0.1, 0.2, 0.3)):
            if (i, k) == (2, 3):
                continue
            loss = 0.3 + 0.1 * abs(i - 1) + 0.01 * abs(k - 2)
            for seed in SEEDS:
                run(
                    folder / f"{i}" / f"{k},{seed}",
                    {"flood": "fixed"},
                    {"flood.b": b, "optimizer.lr": rate},
                    seed=seed,
                    overridden=["flood.b", "optimizer.lr", "seed"],
                    monitor="val/loss",
                    val=scores(0.8, loss),
                    test=scores(0.8, loss + 0.02 * seed),
                )
    return folder


METHODS = {"finetune": (0.80, 10.0), "fgm": (0.85, 20.0), "pgd": (0.84, 40.0), "smart": (0.9, 60.0)}


def methods(folder: Path) -> Path:
    """Four methods, three seeds, attacked by two recipes; pgd is dominated by fgm."""
    for name, (value, seconds) in METHODS.items():
        for seed in (1, 2, 3):
            options = {"method.radius": 0.03 if name == "pgd" else 0.05}
            run(
                folder / f"{name}-{seed}",
                {"method": name},
                {} if name == "finetune" else options,
                seed=seed,
                overridden=["method", "seed"],
                val=scores(value + 0.01 * seed),
                test=scores(value + 0.01 * (seed - 2)),
                seconds=seconds + seed - 2,
                attacks={
                    "textfooler": (100 * value, 20 + 10 * seed, 15 + 10 * seed),
                    "pwws": (100 * value, 50, None),
                },
            )
    return folder
