"""Reports of sweeps: `write` reads the folders of runs, finished or not, and says what came out."""

from lit_adv.reports.report import write as write
