"""Held-out error against the number of realistic spectra, for every kind of emulator.

    python -m tests.benchmarks.learning_curve --simple lte.h5 [--sizes 30 60 100 200 400 800 1065] [--seeds 3] [--only NAME …]

Training spectra are the first n of a random order of the training rows of the Turbospectrum grid (seed 0: the grid's own
order, a Sobol sequence); the held-out tenth is the same for all. Finished entries of `results/learning_curve.json` are kept,
so that the benchmark may be stopped and goes on. `python -m tests.benchmarks.learning_curve --plot` draws the figure.
"""

import argparse
import dataclasses
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from emuinfer.emulators import TransformerConfig, TransformerPayne, load_emulator, save_emulator
from emuinfer.emulators.training import (
    TrainConfig,
    error_table,
    fit_logit_gp,
    fit_logit_pca,
    fit_mlp,
    fit_polynomial,
    predict,
    train,
)
from emuinfer.emulators.training.start import start_from_components, start_from_teacher
from emuinfer.grids import Grid
from emuinfer.grids.split import flagship_split
from emuinfer.labels.windows import OPTICAL_FGK

GRID = Path(__file__).parents[2] / ".." / "shared" / "data" / "grids" / "turbospectrum_5100_5300.npz"
RESULTS = Path(__file__).parent / "results"
SEEDS_UP_TO = 100  # realistic spectra: up to here, every size is run with several seeds
SIMPLE = (
    3000  # simple-physics spectra that Gaussian processes and networks see; a transformer's pixel training sees all
)
WAVELENGTHS = ("table", "encode", "trunk", "trunk_mean", "trunk_in")
SMALL = TransformerConfig(width=32, depth=1, heads=4, tokens=8, label_hidden=256, rank=120)
STAGE = TrainConfig(
    steps=250,
    warmup=30,
    pixels=512,
    learning_rate=6e-4,
    table_rate=0.3,
    decay=0.7,
    validate_every=250,
    checkpoint_every=250,
)


@dataclasses.dataclass
class Task:
    """What an emulator is made from: realistic `labels`, `flux` at `wavelength`, the `simple` grid, and where to keep things."""

    labels: np.ndarray
    flux: np.ndarray
    wavelength: np.ndarray
    simple: Grid
    folder: Path
    seed: int

    def fit(self, function, **options):
        return function(OPTICAL_FGK, self.labels, self.flux, self.wavelength, medium="air", **options)


def best_polynomial(task):
    """The degree that a fifth of the training spectra, held out, likes best."""
    n = max(4, len(task.labels) // 5)
    errors = {}
    for degree in (1, 2, 3):
        part = fit_polynomial(OPTICAL_FGK, task.labels[n:], task.flux[n:], task.wavelength, medium="air", degree=degree)
        errors[degree] = np.abs(predict(part, task.labels[:n], task.wavelength) - task.flux[:n]).mean()
    return task.fit(fit_polynomial, degree=min(errors, key=errors.get))


def simple_spectra(task):
    return np.asarray(task.simple.labels[:SIMPLE]), np.asarray(task.simple.flux[:SIMPLE])


def joint_gp(task, components=160):
    return task.fit(fit_logit_gp, simple=simple_spectra(task), components=components, noise=2e-4)


def pretrained_pca(task):
    """The network for components learns the simple spectra first; the realistic ones move its last layer and the mean."""
    return task.fit(fit_logit_pca, simple=simple_spectra(task))


def new_transformer(seed):
    import jax

    config = dataclasses.replace(SMALL, table_nodes=10_001)
    return TransformerPayne(OPTICAL_FGK, (5100.0, 5300.0), "air", config, key=jax.random.key(seed))


def stage(task):
    """More spectra are worth more steps."""
    steps = int(STAGE.steps * max(1.0, len(task.labels) / 100) ** 0.5)
    return dataclasses.replace(STAGE, steps=steps, validate_every=steps, checkpoint_every=steps, seed=task.seed)


def transformer_from_scratch(task):
    rank = min(SMALL.rank, len(task.labels) - 2)
    import jax

    config = dataclasses.replace(SMALL, rank=rank)
    fresh = TransformerPayne(OPTICAL_FGK, (5100.0, 5300.0), "air", config, key=jax.random.key(task.seed))
    start = start_from_components(fresh, task.labels, task.flux, task.wavelength, seed=task.seed, progress=False)
    return train(start, task.labels, task.flux, task.wavelength, config=stage(task), progress=False)


def pretrained_transformer(task):
    """Trained on the simple spectra, once for all sizes."""
    path = task.folder / "pretrained.json"
    if path.exists():
        return load_emulator(path)
    labels, flux = np.asarray(task.simple.labels), np.asarray(task.simple.flux)
    start = start_from_components(new_transformer(0), labels, flux, task.wavelength, steps=8000, progress=False)
    settings = dataclasses.replace(STAGE, steps=800, validate_every=800, checkpoint_every=800)
    emulator = train(start, labels, flux, task.wavelength, config=settings, progress=False)
    save_emulator(emulator, path)
    return emulator


def transformer_fine_tuned(task, **changes):
    """All weights go on from the simple physics, or but for some; few spectra are learned with a lower rate."""
    rate = STAGE.learning_rate * min(1.0, (len(task.labels) / 400) ** 0.5)
    settings = dataclasses.replace(stage(task), learning_rate=rate, **changes)
    return train(pretrained_transformer(task), task.labels, task.flux, task.wavelength, config=settings, progress=False)


def transformer_by_teacher(task):
    """The bilinear part from the joint Gaussian processes of simple and realistic spectra, then all weights on both."""
    teacher = joint_gp(task)
    return start_from_teacher(new_transformer(task.seed), teacher, n=32768, steps=6000, seed=task.seed, progress=False)


EMULATORS = {
    "polynomial": best_polynomial,
    "The Payne": lambda t: t.fit(fit_mlp),
    "wide network": lambda t: t.fit(fit_mlp, hidden=(1024, 1024), activation="silu", steps=1000),
    "components + network": lambda t: t.fit(fit_logit_pca),
    "components + network, pretrained": pretrained_pca,
    "Gaussian processes": lambda t: t.fit(fit_logit_gp),
    "Gaussian processes, with simple physics": joint_gp,
    "transformer": transformer_from_scratch,
    "transformer, pretrained": transformer_fine_tuned,
    "transformer, pretrained, wavelengths frozen": lambda t: transformer_fine_tuned(t, frozen=WAVELENGTHS),
    "transformer, multi-fidelity": transformer_by_teacher,
}


def split_order(n, seed):
    train_rows, held = flagship_split(n)
    order = train_rows if seed == 0 else np.random.default_rng(seed).permutation(train_rows)
    return order, held


def run(arguments):
    data = np.load(GRID)
    wavelength, flux, labels = data["wavelength"].astype(float), data["flux"], data["labels"].astype(float)
    path, folder = RESULTS / "learning_curve.json", Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    simple = Grid.load(arguments.simple, lazy=True)
    entries = json.loads(path.read_text()) if path.exists() else []
    done = {(e["emulator"], e["spectra"], e["seed"]) for e in entries}
    for seed in range(arguments.seeds):
        order, held = split_order(len(flux), seed)
        for size in arguments.sizes:
            if seed and size > SEEDS_UP_TO:
                continue
            for name in arguments.only or EMULATORS:
                if (name, size, seed) in done:
                    continue
                rows = order[:size]
                task = Task(labels[rows], flux[rows], wavelength, simple, folder, seed)
                began, cpu = time.time(), time.process_time()
                emulator = EMULATORS[name](task)
                seconds = {"wall_s": round(time.time() - began, 1), "cpu_s": round(time.process_time() - cpu, 1)}
                predicted = predict(emulator, labels[held], wavelength)
                table = error_table(emulator, labels[held], flux[held], wavelength, predicted=predicted)
                errors = {k: table[k]["all"] for k in ("native", "R=40000")}
                entries.append({"emulator": name, "spectra": size, "seed": seed, **seconds, "errors": errors})
                print(name, size, seed, seconds, {k: round(v["mae"], 5) for k, v in errors.items()}, flush=True)
                write(path, json.dumps(entries, indent=0))


def write(path, text):
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[30, 60, 100, 200, 400, 800, 1065])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(EMULATORS))
    parser.add_argument("--simple", help="a grid of simple physics (HDF5)")
    parser.add_argument(
        "--folder", default=str(Path(tempfile.gettempdir()) / "learning_curve"), help="for what is kept between runs"
    )
    parser.add_argument("--plot", action="store_true")
    arguments = parser.parse_args()
    if arguments.plot:
        return plot()
    run(arguments)


def plot():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    entries = json.loads((RESULTS / "learning_curve.json").read_text())
    figure, axis = plt.subplots(figsize=(9, 7), layout="constrained")
    marks = dict(zip(EMULATORS, "ovs^^DDPXXX"))
    for i, name in enumerate(EMULATORS):
        found = [e for e in entries if e["emulator"] == name]
        sizes = sorted({e["spectra"] for e in found})
        if not sizes:
            continue
        mae = [np.median([e["errors"]["R=40000"]["mae"] for e in found if e["spectra"] == n]) for n in sizes]
        own = name.startswith("transformer")
        with_simple = any(word in name for word in ("pretrained", "simple", "multi"))
        axis.plot(
            sizes,
            mae,
            marker=marks[name],
            color=f"C{i}",
            lw=2.2 if own else 1.2,
            ls="-" if with_simple else "--",
            label=name,
        )
    axis.axhline(0.0025, color="0.6", lw=0.8, ls=":")
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="realistic training spectra",
        ylabel="mean absolute error of the flux at R = 40,000",
    )
    axis.set_xticks([30, 60, 100, 200, 400, 800, 1065], ["30", "60", "100", "200", "400", "800", "1065"], minor=False)
    axis.minorticks_off()
    figure.legend(loc="outside lower center", fontsize=9, ncols=3)
    axis.set_title("118 held-out Turbospectrum spectra; full lines: with LTE spectra of simple physics")
    figure.savefig(RESULTS / "learning_curve.png", dpi=130)


if __name__ == "__main__":
    main()
