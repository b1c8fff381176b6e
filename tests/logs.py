"""The folder of a run, its metrics.csv written by hand."""

from pathlib import Path

CHOSEN = "flood:\n  _target_: lit_adv.flood.none.NoFlood\n"

TURNED = """
    step epoch train/loss val/loss
    0    -     -          -
    1    0     0.80       -
    3    0     0.60       -
    3    0     -          0.65
    4    -     -          -
    5    1     0.50       -
    7    1     0.20       -
    7    1     -          0.40
    9    2     0.20       -
    11   2     0.10       -
    11   2     -          0.55
"""
"""Its validation loss was lowest at step 7, and its training loss 0.35 since the one before."""


def written(folder: Path, table: str = TURNED, config: str | None = CHOSEN) -> Path:
    """A run's folder with these metrics, where - is what a row does not say."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [line.split() for line in table.strip().splitlines()]
    lines = [",".join("" if cell == "-" else cell for cell in row) for row in rows]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    if config is not None:
        (folder / "config.yaml").write_text(config)
    return folder
