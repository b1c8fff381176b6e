"""A series: one recipe against the whole sample, gone on with where it was interrupted."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lit_adv import results
from lit_adv.attacks import page, summary
from lit_adv.attacks.progress import Progress, claim
from lit_adv.attacks.session import Session
from lit_adv.attacks.trial import Recipe

RUNNING = ("concurrency", "batch_tokens", "precision")
"""Settings that do not change what comes out, up to rounding."""


class Series:
    """Attacks by one recipe.

    Args:
        name: of the recipe.
        recipe: how texts are attacked.
        session: the victim and its data.
        folder: for attack.json, attack.jsonl and attack.html.
        described: what the records depend on beside: `victim`, a resource, and `data`, with a
            name.

    Raises:
        ValueError: a resource is missing or cannot be read.
    """

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        session: Session,
        folder: Path,
        described: Mapping[str, Any],
    ) -> None:
        self.name, self.recipe, self.session, self.folder = name, recipe, session, folder
        self.kit = session.kit(recipe)
        settings = {k: v for k, v in asdict(session.settings).items() if k not in RUNNING}
        self.settings = {
            **described,
            "recipe": {"name": name, **asdict(recipe)},  # pyright: ignore
            "settings": {**settings, "precision": session.reader.precision},
            "resources": self.kit.used,
        }
        self.rows = session.rows()

    def claim(self) -> None:
        """Make the folder this series'.

        Raises:
            ValueError: it holds attacks by other settings.
        """
        claim(self.folder, self.settings)

    def work(self, part: int = 0, count: int = 1) -> None:
        """Attack what is not done of one of `count` parts of the sample; the folder is claimed."""
        progress = Progress(self.folder, part)
        done = progress.records()
        mine = self.rows[part::count]
        outcomes = Counter(done[row]["outcome"] for row in mine if row in done)
        left = [row for row in mine if row not in done]
        before = max((record["at"] for record in done.values()), default=0.0)
        started = time.perf_counter()
        label = self.name if count == 1 else f"{self.name}, 1 of {count} processes"
        with tqdm(
            total=len(mine),
            initial=outcomes.total(),
            desc=label,
            unit="text",
            dynamic_ncols=True,
            disable=part > 0,
        ) as bar:
            for record in self.session.attack(self.session.examples(left), self.recipe, self.kit):
                record["at"] = before + time.perf_counter() - started
                progress.add(record)
                outcomes[record["outcome"]] += 1
                bar.set_postfix_str(running(outcomes), refresh=False)
                bar.update()

    def conclude(self) -> dict[str, Any]:
        """All records in one file, their figures in another, and a page to read."""
        records = Progress(self.folder).finish(self.rows)
        outcome = self.report(records)
        results.write(self.folder / "attack.json", outcome)
        shown = {
            **outcome,
            "victim": outcome["victim"]["path"],
            "data": outcome["data"]["name"],
            "resources": [outcome["victim"], *outcome["resources"]],
        }
        page.write(self.folder / "attack.html", shown, records, self.session.label_names)
        return outcome

    def report(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """The figures of these records, and what they depend on."""
        seconds = max((record["at"] for record in records), default=0.0)
        both = [each for r in records for each in (r, r.get("calibrated") or {})]
        asked = sum(each.get("queries", 0) for each in both)
        calibrated = None
        if self.session.settings.calibrate:
            calibrated = summary.calibrated(records, self.session.temperature)
        return {
            **self.settings,
            "recipe": self.name,
            "n": len(records),
            **summary.of(records),
            "calibrated": calibrated,
            "truncated": sum(record["truncated"] for record in records),
            "seconds": seconds,
            "queries_per_second": asked / seconds if seconds else None,
            "settings": {**self.settings["recipe"], **self.settings["settings"]},
            "notes": self.kit.notes,
            "versions": results.versions(),
        }


def running(outcomes: Counter[str]) -> str:
    """The figures so far, in a few words."""
    clean, under = summary.accuracies(outcomes).values()
    if clean is None or under is None:
        return ""
    return f"clean {clean:.1f} %, under attack {under:.1f} %"
