"""The examples run as they stand, away from the checkout, and say what they say they do."""

import re
from pathlib import Path

import pytest
from forks import Fork

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize(
    "name, says, at_most",
    [
        ("adopted_module", r"test/accuracy\D*([\d.]+)", None),
        ("fabric_loop", r"test accuracy ([\d.]+)", None),
        ("huggingface_trainer", r"evaluation loss ([\d.]+)", 2.2),
        ("lora_decoder", r"loss ([\d.]+), noise", 2.8),
        ("accordance", r"accordance/cross (-?[\d.]+)", None),
    ],
)
def test_an_example_runs(
    name: str,
    says: str,
    at_most: float | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    for package in {"huggingface_trainer": ["accelerate"], "lora_decoder": ["peft"]}.get(name, []):
        pytest.importorskip(package, reason="an extra")
    monkeypatch.syspath_prepend(EXAMPLES)
    done = Fork(f"{name}.main", log=tmp_path / name, cwd=tmp_path).wait()
    assert done.returncode == 0, done.stderr
    found = re.findall(says, done.stdout + done.stderr)
    assert found, done.stdout + done.stderr
    value = float(found[-1])
    if name in ("adopted_module", "fabric_loop"):  # by chance it is 0.1
        assert value > 0.6
    if at_most is not None:  # by chance it is log 10 = 2.3, and log 18 = 2.9
        assert value < at_most
