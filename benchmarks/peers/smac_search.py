"""SMAC3 as a peer of `benchmarks/search.py`: its facade for hyperparameters, asked for one configuration at a time.

It runs in an environment of its own. Its first line of input is the task; then it writes a configuration and reads the
accuracy of it, line by line.
"""

import json
import sys
import tempfile
from pathlib import Path

from ConfigSpace import Configuration, ConfigurationSpace, Float, Integer
from smac import HyperparameterOptimizationFacade, Scenario
from smac.runhistory.dataclasses import TrialInfo, TrialValue


def main() -> None:
    """Ask and tell until all trials are over; the first is the default, as everybody's is."""
    task = json.loads(sys.stdin.readline())
    space = ConfigurationSpace(seed=task["seed"])
    for name, domain in task["space"].items():
        kind = Float if domain["type"] == "float" else Integer
        space.add(kind(name, (domain["low"], domain["high"]), log=domain["log"], default=task["default"][name]))
    with tempfile.TemporaryDirectory() as folder:
        about = {"n_trials": task["trials"], "seed": task["seed"], "output_directory": Path(folder)}
        scenario = Scenario(space, deterministic=True, **about)
        search = HyperparameterOptimizationFacade(
            scenario, lambda config, seed=0: 0.0, overwrite=True, logging_level=50
        )
        for number in range(task["trials"]):
            info = search.ask() if number else TrialInfo(Configuration(space, task["default"]), seed=0)
            print(json.dumps(dict(info.config)), flush=True)
            search.tell(info, TrialValue(cost=-float(sys.stdin.readline())))


if __name__ == "__main__":
    main()
