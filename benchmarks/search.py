"""How good the trials are that a search chooses, beside optuna's TPE and random draws in the same run.

    regret_30       points of accuracy by which the best of 30 trials falls short of the best that is known: of 20,000
                    configurations that were drawn, or of a formula; below zero where a search finds a better one
    regret_30_tpe, regret_30_random    the same of optuna's samplers with their defaults, from the same first trial
    regret_30_lcbench, regret_30_hartmann    ours, by where the problems come from
    halving_saving  epochs of forty trainings over those that are trained where the better half of them goes on at each
                    rung; which trials go on is decided by the product's own function
    halving_loss    points of accuracy by which the best that is left falls short of the best of all forty
    suggestion      seconds of a processor in which the 30th trial is chosen: the median, and the slowest
                    (`suggestion_max`)

Each key comes again with `_held` for the instances that were held out (`benchmarks/search_cases/problems.py` says
which, and since when), and `_n` counts the studies. `--lcbench DIR` is the folder of YAHPO's LCBench surrogate
(`lcbench/` of slds-lmu/yahpo_data); without it only the closed-form function is searched. `--peers DIR` adds optuna's
own Gaussian process with its defaults (`regret_30_gp`), SMAC3's facade for hyperparameters (`_smac`) and Syne Tune's
conformal quantile regression (`_syne`), which are installed in environments of their own in DIR; one that will not
install is named with the reason. `over_NAME_p` is the probability with which ours would differ so much from NAME's by
chance (signs of paired differences flipped). `--instances N` takes the first N of each, `--quick` two, of one half.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, median

sys.path.insert(0, str(Path(__file__).parents[1]))

import optuna
import torch

from agents.hyperparameter_specialist.halving import decide_rung, rung_score
from agents.hyperparameter_specialist.jobs.ask import ask
from agents.hyperparameter_specialist.progress import Past, sampler_of
from benchmarks.report import parser, report
from benchmarks.search_cases.problems import EPOCHS, Problem, hartmann, lcbench
from contracts.request.search import Halving
from contracts.request.space import Interval
from runtime.statistics.resampling import sign_flip

TRIALS, DRAWN = 30, 40
FAMILIES = ("_hartmann", "_lcbench")
PEERS = {"smac": ("smac==2.4.1",), "syne": ("syne-tune==0.16.0", "huggingface_hub")}
"""What is installed for each peer that is no sampler of optuna; `benchmarks/peers/NAME_search.py` asks it."""
Arm = Callable[[Problem, int], list[float]]
"""The values of the trials of one study, in their order."""


def main() -> None:
    """Every arm on every instance, the tuned half and then the held-out one."""
    asks = parser(__doc__ or "")
    asks.add_argument("--lcbench", type=Path, help="the folder of YAHPO's LCBench surrogate")
    asks.add_argument("--peers", type=Path, help="a folder for environments of peers: others take part as well")
    asks.add_argument("--seeds", type=int, default=1, help="studies of each instance")
    asks.add_argument("--halving", action="store_true", help="nothing but halving, which takes seconds")
    asks.add_argument("--instances", type=int, help="so many of each family")
    asks.add_argument("--half", choices=["tuned", "held"], help="only one half of the instances")
    asked = asks.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    pythons, notes = environments(asked.peers) if asked.peers else ({}, {})
    halves = [asked.half] if asked.half else ["tuned"] if asked.quick else ["tuned", "held"]
    for half in halves:
        surrogates, formulas = lcbench(asked.lcbench, half) if asked.lcbench else [], hartmann(half)
        some = slice(2 if asked.quick else asked.instances)
        problems = [*surrogates[some], *formulas[some]]
        seeds = range(1, 2 if asked.quick else asked.seeds + 1)
        end = "" if half == "tuned" else "_held"
        told = halved(problems, range(1, 2 if asked.quick else 5))
        if not asked.halving:
            told |= regrets(problems, seeds, pythons if asked.peers else None)
        figures |= {f"{name}{end}": value for name, value in told.items()}
    report(asked, figures, notes)


def environments(folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The interpreters of the peers that are installed, or can be, and why others are not."""
    pythons, notes = dict[str, Path](), dict[str, str]()
    for name, packages in PEERS.items():
        python = folder.absolute() / name / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder / name)], check=True)
            pip = [str(python), "-m", "pip", "install", "--quiet", *packages]
            done = subprocess.run(pip, check=False, capture_output=True, text=True)
            if done.returncode:
                notes[name] = f"not installed: {done.stderr.strip().splitlines()[-1]}"
        probe = [str(python), "-P", "-c", f"import benchmarks.peers.{name}_search"]
        begins = subprocess.run(probe, check=False, capture_output=True, text=True, env=_environment())
        if begins.returncode == 0:
            pythons[name] = python
        else:
            notes.setdefault(name, f"does not begin: {begins.stderr.strip().splitlines()[-1]}")
    return pythons, notes


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def regrets(problems: Sequence[Problem], seeds: Sequence[int], peers: Mapping[str, Path] | None) -> dict[str, float]:
    """The figures of one half; with `peers`, optuna's Gaussian process and those that have an interpreter take part."""
    seconds: list[float] = []
    arms: dict[str, Arm] = {"": lambda problem, seed: ours(problem, seed, seconds)}
    arms |= {"_tpe": lambda *given: of_optuna("tpe", *given), "_random": lambda *given: of_optuna("random", *given)}
    if peers is not None:
        arms["_gp"] = lambda *given: of_optuna("gp", *given)
        arms |= {f"_{name}": partial(of_peer, python, name) for name, python in peers.items()}
    lost: defaultdict[str, list[float]] = defaultdict(list)
    for problem in problems:
        family = FAMILIES[not problem.name.startswith("hartmann")]
        for seed in seeds:
            for name, arm in arms.items():
                regret = problem.best - max(arm(problem, seed))
                lost[name].append(regret)
                if not name:
                    lost[family].append(regret)
            told = (f"{name or 'ours'} {values[-1]:.2f}" for name, values in lost.items() if name not in FAMILIES)
            print(problem.name, seed, *told, file=sys.stderr, flush=True)
    figures = {f"regret_{TRIALS}{name}": fmean(values) for name, values in lost.items()}
    figures |= {f"regret_{TRIALS}_n": len(lost[""]), "suggestion": median(seconds), "suggestion_max": max(seconds)}
    for name in ("_tpe", "_random", *(("_gp", *(f"_{peer}" for peer in peers)) if peers is not None else ())):
        differences = [mine - other for mine, other in zip(lost[""], lost[name], strict=True)]
        figures[f"over{name}_p"] = sign_flip(differences)
    return figures


def halved(problems: Sequence[Problem], seeds: Sequence[int]) -> dict[str, float]:
    """What halving saves and loses, over studies of configurations that are spread evenly over the space."""
    rungs = Halving().rungs(EPOCHS)
    saved, lost = [], []
    for problem in problems:
        for seed in seeds:
            curves = problem.values(problem.drawn(DRAWN, seed), range(1, EPOCHS + 1))
            left, trained = tuple(range(DRAWN)), 0
            for before, rung in zip((0, *rungs), rungs, strict=False):
                trained += len(left) * (rung - before)
                at, half = curves[:, rung - 1], curves[:, max(rung // 2, 1) - 1]
                scores = {one: rung_score(at[one], half[one], minimizes=False) for one in left}
                left = decide_rung(scores, Halving().factor).kept
            trained += len(left) * (EPOCHS - rungs[-1])
            saved.append(DRAWN * EPOCHS / trained)
            lost.append(float(curves[:, -1].max() - curves[list(left), -1].max()))
    return {"halving_saving": fmean(saved), "halving_loss": fmean(lost), "halving_n": len(lost)}


def ours(problem: Problem, seed: int, seconds: list[float]) -> list[float]:
    """What the product chooses, each trial after all those before it; how long the last one took goes to `seconds`."""
    search = problem.search(seed, TRIALS)
    past = [Past(problem.default, "complete", problem.value(problem.default))]
    took = 0.0
    while len(past) < TRIALS:
        begun = time.process_time()
        chosen = ask(search, sampler_of(search), len(past), past)
        took = time.process_time() - begun
        past.append(Past(chosen, "complete", problem.value(chosen)))
    seconds.append(took)
    return [trial.value for trial in past if trial.value is not None]


def of_optuna(name: str, problem: Problem, seed: int) -> list[float]:
    """The same by one of optuna's samplers with its defaults."""
    kinds = {
        "tpe": optuna.samplers.TPESampler,
        "random": optuna.samplers.RandomSampler,
        "gp": optuna.samplers.GPSampler,
    }
    study = optuna.create_study(direction="maximize", sampler=kinds[name](seed=seed))
    study.enqueue_trial(dict(problem.default))

    def value(trial: optuna.Trial) -> float:
        chosen: dict[str, object] = {}
        for path, domain in problem.space.items():
            suggest = trial.suggest_float if isinstance(domain, Interval) else trial.suggest_int
            chosen[path] = suggest(path, domain.low, domain.high, log=domain.log)  # type: ignore[arg-type]
        return problem.value(chosen)

    study.optimize(value, n_trials=TRIALS)
    return [trial.value for trial in study.trials if trial.value is not None]


def of_peer(python: Path, name: str, problem: Problem, seed: int) -> list[float]:
    """The same by a peer in a process of its own, which writes a configuration and reads what it comes to."""
    space = {path: domain.model_dump() for path, domain in problem.space.items()}
    task = {"space": space, "default": dict(problem.default), "seed": seed, "trials": TRIALS}
    values: list[float] = []
    command = [str(python), "-P", "-m", f"benchmarks.peers.{name}_search"]
    with subprocess.Popen(
        command, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as peer:
        assert peer.stdin is not None
        assert peer.stdout is not None
        line = json.dumps(task)
        for _ in range(TRIALS):
            peer.stdin.write(f"{line}\n")
            peer.stdin.flush()
            values.append(problem.value(json.loads(peer.stdout.readline())))
            line = repr(values[-1])
        peer.stdin.write(f"{line}\n")
    return values


if __name__ == "__main__":
    main()
