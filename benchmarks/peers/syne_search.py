"""Syne Tune as a peer of `benchmarks/search.py`: its conformal quantile regression, asked for one trial at a time.

It runs in an environment of its own. Its first line of input is the task; then it writes a configuration and reads the
accuracy of it, line by line.
"""

import json
import sys

from syne_tune.config_space import lograndint, loguniform, randint, uniform
from syne_tune.optimizer.baselines import CQR
from syne_tune.optimizer.schedulers.ask_tell_scheduler import AskTellScheduler

KINDS = {("float", False): uniform, ("float", True): loguniform, ("int", False): randint, ("int", True): lograndint}


def main() -> None:
    """Ask and tell until all trials are over; the first is the default, as everybody's is."""
    task = json.loads(sys.stdin.readline())
    space = {name: KINDS[of["type"], of["log"]](of["low"], of["high"]) for name, of in task["space"].items()}
    search = AskTellScheduler(
        CQR(space, "accuracy", do_minimize=False, random_seed=task["seed"], points_to_evaluate=[task["default"]])
    )
    for _ in range(task["trials"]):
        trial = search.ask()
        print(json.dumps(trial.config), flush=True)
        search.tell(trial, {"accuracy": float(sys.stdin.readline())})


if __name__ == "__main__":
    main()
