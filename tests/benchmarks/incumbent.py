"""`TransformerPayne` beside its peers: error at equal parameters and samples, and microseconds per pixel.

    python -m tests.benchmarks.incumbent --peers-python PATH --payne-python PATH [--only NAME …] [--core N] [--speed]

from the repository's root remakes `results/incumbent.json`. The peers have virtual environments of their own
(Python 3.11): `pip install astro-emulators-toolkit==0.1.0` in one, `pip install transformer-payne==0.10` in the other.

Training: from scratch, on the same draws of (spectrum, pixel) from the training rows of the Turbospectrum grid, each
model in a process on one core, 1 to 10 minutes of it. The parameter counts are of all trained numbers, wavelength
tables included; the times include compiling. Each package has the optimiser, schedule and loss that it recommends,
except where an entry's name says otherwise. Finished entries are kept, so that the benchmark may be stopped and goes
on; to remake one, delete it from the file.

Speed (`--speed`): one process for each model, all on the same core, in which rounds are timed in turns; random weights.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import numpy as np

from emuinfer import __version__
from emuinfer.emulators.training import error_table
from emuinfer.grids.split import flagship_split
from emuinfer.labels.windows import OPTICAL_FGK

from .learning_curve import GRID, RESULTS, write

WORKER = Path(__file__).with_name("incumbent_worker.py")
PATH = RESULTS / "incumbent.json"
ROUNDS = 9
RUN = {"spectra": 16, "pixels": 512, "steps": 1500, "seed": 0}

# 136,000 parameters in the toolkit's transformer; those of emuinfer are within 5 % of that.
PEER = {"dim": 64, "dim_head": 32, "no_layers": 2, "no_tokens": 8, "dim_ff_multiplier": 4}
PAPER = {"min_period": 1e-6, "max_period": 10.0}  # in log10 Å, the toolkit class's own; its preset has 0.03–30 Å
OURS = {"width": 64, "depth": 2, "heads": 2, "tokens": 8, "label_hidden": 112, "table_nodes": 0, "rank": 0}
TABLES = {"width": 4, "depth": 1, "heads": 1, "tokens": 8, "label_hidden": 64, "frequencies": 8, "rank": 8}

# No period longer than twice the window, so that the frequencies are spent where lines are; and a loss nearer to the
# mean square, which does not take a spectrum without lines for nearly right.
PERIODS, EARLY = {"longest_period": 0.03}, {"huber": 0.1}

TRAINING = {
    "toolkit, preset": {"package": "toolkit", "model": PEER},
    "toolkit, rate 0.01": {"package": "toolkit", "model": PEER, "optimiser": {"lr": 1e-2}},
    "toolkit, log wavelength": {"package": "toolkit", "model": PEER | PAPER, "axis": "log10"},
    "emuinfer, sinusoids": {"package": "emuinfer", "model": OURS},
    "emuinfer, sinusoids, huber 0.1, periods to 0.03": {
        "package": "emuinfer",
        "model": OURS | PERIODS,
        "optimiser": EARLY,
    },
    "emuinfer, tables": {"package": "emuinfer", "model": TABLES},
    # Principal components see every training pixel once, 1,300 steps' worth of samples; then the rates of fine-tuning.
    "emuinfer, tables from components": {
        "package": "emuinfer",
        "model": TABLES,
        "components": True,
        "steps": 200,
        "optimiser": {"learning_rate": 6e-4, "table_rate": 0.3, "decay": 0.7},
    },
}

# The released size of transformer-payne, and what it is in the other two.
RELEASED = {"dim": 128, "dim_head": 32, "no_layers": 8, "no_tokens": 16, "dim_ff_multiplier": 4}
AS_RELEASED = OURS | {"width": 128, "depth": 8, "heads": 4, "tokens": 16, "label_hidden": 128, "feedforward": 4}
SPEED = {
    "toolkit": {"package": "toolkit", "model": PEER},
    "emuinfer, sinusoids": {"package": "emuinfer", "model": OURS},
    "emuinfer, sinusoids, phases made anew": {"package": "emuinfer", "model": OURS, "prepared": False},
    "emuinfer, tables": {"package": "emuinfer", "model": TABLES},
    "toolkit, 8 spectra": {"package": "toolkit", "model": PEER, "spectra": 8},
    "emuinfer, sinusoids, 8 spectra": {"package": "emuinfer", "model": OURS, "spectra": 8},
    "emuinfer, tables, 8 spectra": {"package": "emuinfer", "model": TABLES, "spectra": 8},
    "transformer-payne, released size": {"package": "payne", "model": RELEASED},
    "toolkit, released size": {"package": "toolkit", "model": RELEASED | PAPER, "axis": "log10"},
    "emuinfer, released size": {"package": "emuinfer", "model": AS_RELEASED},
    "emuinfer, optical-fgk": {"package": "emuinfer", "load": "optical-fgk"},
}


def read_data(folder):
    """Write the training spectra for the workers; returns held-out labels and flux, and the wavelengths."""
    file = np.load(GRID)
    flux, labels = file["flux"].astype(np.float32), file["labels"].astype(float)
    wavelength = file["wavelength"].astype(float)
    rows, held = flagship_split(len(flux))
    scale = lambda some: np.asarray(OPTICAL_FGK.scale(some), np.float32)
    np.savez(
        folder / "data.npz",
        wavelength=wavelength,
        labels=labels[rows],
        scaled=scale(labels[rows]),
        flux=flux[rows],
        held_labels=labels[held],
        held_scaled=scale(labels[held]),
    )
    return labels[held], flux[held], wavelength


def environment(package):
    """Without the caller's own paths for the peers, whose Python has nothing of emuinfer."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} if package == "emuinfer" else kept


def train_one(name, task, pythons, data):
    """Train in a worker; the entry for the results."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        labels, flux, wavelength = read_data(folder)
        (folder / "task.json").write_text(json.dumps(task))
        package = task["package"]
        subprocess.run([pythons[package], WORKER, "train", folder], check=True, env=environment(package))
        predicted, report = np.load(folder / "predicted.npy"), json.loads((folder / "report.json").read_text())
    space = types.SimpleNamespace(labels=OPTICAL_FGK.names, label_space=OPTICAL_FGK)
    table = error_table(space, labels, flux, wavelength, predicted=predicted)
    errors = {k: table[k]["all"] for k in ("native", "R=40000")}
    samples = task["spectra"] * task["pixels"] * task["steps"] + data * bool(task.get("components"))
    return {"task": task, "samples": samples, **report, "load": os.getloadavg()[0], "errors": errors}


def speeds(pythons, core):
    """Medians over rounds in turns, in microseconds per pixel of wall clock and of CPU, of every model of `SPEED`."""
    rows, workers = {}, {}
    try:
        for name, task in SPEED.items():
            task = {"spectra": 1, **task, "core": core}
            command = [pythons[task["package"]], WORKER, "speed", json.dumps(task)]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(task["package"])
            )
            workers[name] = process
            rows[name] = {"task": task, **json.loads(process.stdout.readline())}
        rounds = {name: [] for name in workers}
        for _ in range(ROUNDS):
            for name, process in workers.items():
                process.stdin.write("\n")
                process.stdin.flush()
                rounds[name].append(json.loads(process.stdout.readline()))
    finally:
        for process in workers.values():
            process.stdin.close()
            process.wait()
    for name, row in rows.items():
        wall, cpu = 1e6 * np.median(rounds[name], axis=0) / (10_001 * row["task"]["spectra"])
        row |= {"us_per_pixel": float(wall), "cpu_us_per_pixel": float(cpu)}
        print(f"{name:45s} {row['parameters']:9d} parameters  {wall:8.3f} µs per pixel, {cpu:8.3f} of CPU")
    return rows


def results():
    if PATH.exists():
        return json.loads(PATH.read_text())
    return {"machine": machine(), "emuinfer": __version__, "rounds": ROUNDS, "training": {}, "speed": {}}


def machine():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    return f"{os.cpu_count()} cores, {model}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers-python", required=True, help="a Python with astro-emulators-toolkit 0.1.0")
    parser.add_argument("--payne-python", help="a Python with transformer-payne 0.10, for --speed")
    parser.add_argument("--only", nargs="*", choices=list(TRAINING), help="models to train; none of them if left empty")
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--speed", action="store_true")
    arguments = parser.parse_args()
    pythons = {"emuinfer": sys.executable, "toolkit": arguments.peers_python, "payne": arguments.payne_python}
    for name in TRAINING if arguments.only is None else arguments.only:
        if name in results()["training"]:
            continue
        entry = train_one(name, {**RUN, **TRAINING[name], "core": arguments.core}, pythons, data=1065 * 10_001)
        print(name, entry, flush=True)
        # Read again: another core may have finished something meanwhile.
        found = results()
        found["training"][name] = entry
        write(PATH, json.dumps(found, indent=1))
    if arguments.speed:
        rows = speeds(pythons, arguments.core)
        write(PATH, json.dumps(results() | {"speed": rows, "load": os.getloadavg()[0]}, indent=1))


if __name__ == "__main__":
    main()
