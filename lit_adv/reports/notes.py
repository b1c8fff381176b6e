"""What a reader of a report has to know about its figures."""

from lit_adv.reports.sweep import Problem, Sweep


def of(sweep: Sweep) -> list[str]:
    """The notes that hold for this sweep."""
    metric = sweep.metric
    gaps = [sweep.difference(each) for each in sweep.settings]
    compared = sum(gap is not None and gap.half is not None for gap in gaps)
    said = [
        "Runs that differ in nothing but the seed, and in what follows from it, are one setting. "
        "\N{PLUS-MINUS SIGN} is the sample standard deviation over its seeds.",
        "The difference is that to the baseline: plain fine-tuning with all other settings equal, "
        "else flood level 0. It is paired: the mean, over the seeds that both have, of the "
        "differences within a seed, with Student's 95 % interval; - for less than two pairs.",
    ]
    if compared > 1:
        said.append(
            f"The intervals are not corrected for there being {compared} of them: "
            f"{0.05 * compared:.2g} of so many would leave out 0 on average if nothing had any "
            "effect."
        )
    if metric.chosen is None:
        said.append("No best setting is named: there is no validation metric to choose it by.")
    elif metric.chosen == metric.shown:
        said.append(
            f"The best is chosen and shown by the same metric, {metric.shown}: the best of many is "
            "partly luck, and its figure is too good by that much. The test split knows nothing of "
            "the choice."
        )
    else:
        said.append(
            f"The best is chosen by the mean of {metric.chosen}; {metric.shown} had no part in it."
        )
    for problem in sweep.problems:
        if (equals := _equals(problem, metric.chosen)) > 1:
            said.append(f"{equals} settings share the best mean of {metric.chosen}: the first of "
                        "them is named.")  # fmt: skip
    if len({len(s.runs) for s in sweep.settings if s.runs}) > 1:
        said.append("Settings do not all have as many seeds: those with few scatter more, and win "
                    "or lose more by chance.")  # fmt: skip
    if any(s.failed for s in sweep.settings):
        said.append("Failed runs are counted in no mean; where seeds of a setting failed, the mean "
                    "is that of the seeds that did not.")  # fmt: skip
    if any(s.pruned for s in sweep.settings):
        said.append("Pruned runs were ended early, because others did better at the same time; "
                    "they are counted in no mean.")  # fmt: skip
    if any(run.state == "running" for run in sweep.runs):
        said.append("Running: without results so far, whether still at work or ended without a "
                    "word. The report is as of when it was written.")  # fmt: skip
    if repeated := sum(len(s.repeated) for s in sweep.settings):
        said.append(f"{repeated} finished runs repeat another one's setting and seed: of each seed "
                    "the last one by name is counted.")  # fmt: skip
    if unknown := [run.name for run in sweep.runs if not run.settings]:
        said.append(f"The settings of {', '.join(unknown[:5])} could not be read.")
    if len(sweep.problems) > 1:
        said.append("Runs on different data are not compared with each other.")
    without = sum(run.state == "ok" and metric.shown not in run.metrics for run in sweep.runs)
    if without:
        said.append(f"{without} finished runs have no {metric.shown}.")
    return said


def _equals(problem: Problem, chosen: str | None) -> int:
    """How many settings are as good as the best one, to the last digit."""
    best = problem.best.spread(chosen) if problem.best else None
    found = [each.spread(chosen) for each in problem.settings]
    return sum(best is not None and s is not None and s.mean == best.mean for s in found)
