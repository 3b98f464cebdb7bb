"""How the held-out error of a transformer falls with compute, and which optimiser and learning rates serve it best.

    python -m tests.benchmarks.scaling --simple lte.h5 --part law|optimisers|rates [--minutes 5]
    python -m tests.benchmarks.scaling --plot

Transformers without the bilinear part (rank 0) learn spectra of simple physics from scratch; 32 spectra are held out. `law` trains
each size for the same time and follows the error of the averaged weights; `optimisers` and `rates` are runs of equal steps, the
latter with and without the scaling of rates with width (muP). Finished runs in `results/scaling.json` are kept.
"""

import argparse
import dataclasses
import json
import os
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from emuinfer.emulators import TransformerConfig, TransformerPayne, save_emulator
from emuinfer.emulators.training import TrainConfig, train
from emuinfer.grids import Grid
from emuinfer.grids.split import split_rows
from emuinfer.labels.windows import OPTICAL_FGK

RESULTS = Path(__file__).parent / "results"
SPAN = (5100.0, 5300.0)
SIZES = {"4 × 1": (4, 1), "8 × 1": (8, 1), "16 × 1": (16, 1), "32 × 2": (32, 2), "64 × 3": (64, 3)}  # width × depth
TRAIN = TrainConfig(
    warmup=100,
    learning_rate=4e-3,
    decay=0.3,
    spectra=16,
    pixels=512,
    average=0.99,
    huber=0.1,
    base_width=32,
    base_depth=2,
    validate_every=100,
    checkpoint_every=10**9,
)
STEPS = 500


def sizes(width, depth, **more) -> TransformerConfig:
    heads = max(2, width // 8)
    return TransformerConfig(
        width=width, depth=depth, heads=heads, tokens=16, label_hidden=128, rank=0, longest_period=0.03, **more
    )


def new(config, seed=0):
    return TransformerPayne(OPTICAL_FGK, SPAN, "air", config, key=jax.random.key(seed))


def flops_per_pixel(c: TransformerConfig) -> float:
    """Multiplications and additions of the blocks and encodings for one wavelength of one spectrum (label parts are shared)."""
    block = 2 * 2 * c.width * c.heads * c.tokens + 2 * 2 * c.feedforward * c.width**2
    return c.depth * block + 2 * 2 * c.frequencies * c.width + 2 * c.width


def count(emulator) -> int:
    import equinox as eqx

    return sum(a.size for a in jax.tree.leaves(eqx.filter(emulator, eqx.is_inexact_array)))


class Data:
    def __init__(self, path):
        grid = Grid.load(path, lazy=True)
        rows, held = split_rows(len(grid))
        labels, flux = np.asarray(grid.labels), np.asarray(grid.flux)
        self.wavelength = grid.wavelength
        self.train, self.held = (labels[rows], flux[rows]), (labels[held][:32], flux[held][:32])


def learn(data, config, settings, save=None):
    """The metrics of a run: step, seconds, and MAE and RMSE of held-out spectra."""
    with tempfile.TemporaryDirectory() as folder:
        emulator = train(
            new(config),
            *data.train,
            data.wavelength,
            config=settings,
            held_out=data.held,
            directory=folder,
            progress=False,
        )
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    if save is not None:
        save_emulator(
            emulator, save, {"title": "Transformer of simple physics", "recipe": dataclasses.asdict(settings)}
        )
    return [{k: line[k] for k in ("step", "seconds", "mae", "rmse")} for line in lines]


def law(data, minutes, folder):
    for name, (width, depth) in SIZES.items():
        config = sizes(width, depth)
        began, short = time.time(), dataclasses.replace(TRAIN, steps=40, warmup=5, validate_every=10)
        first, *_, last = learn(data, config, short)
        # A validation takes part of these times; without it, more steps would fit.
        steps = max(200, int(minutes * 60 / ((last["seconds"] - first["seconds"]) / 30)) // 100 * 100)
        print(name, steps, "steps, timed in", round(time.time() - began), "s", flush=True)
        settings = dataclasses.replace(TRAIN, steps=steps)
        # Three times the forward pass for forward and backward.
        work = 3.0 * settings.spectra * settings.pixels * flops_per_pixel(config)
        yield (
            {"run": f"law {name}", "width": width, "depth": depth},
            lambda s=settings, c=config, n=name, w=work: {
                "flops_per_step": w,
                "parameters": count(new(c)),
                "curve": learn(data, c, s, folder / f"law-{n.replace(' × ', 'x')}"),
            },
        )


def optimisers(data, *_):
    for optimiser in ("adamw", "muon"):
        for rate in (2e-3, 4e-3, 8e-3, 1.6e-2):
            settings = dataclasses.replace(
                TRAIN, steps=STEPS, optimiser=optimiser, learning_rate=rate, validate_every=STEPS
            )
            yield (
                {"run": f"optimiser {optimiser}", "rate": rate},
                lambda s=settings: {"curve": learn(data, sizes(32, 2), s)},
            )


KINDS = {"muP": ("adamw", True), "one rate": ("adamw", False), "muP, Muon": ("muon", True)}


def rates(data, *_):
    for kind, (optimiser, scaled) in KINDS.items():
        for width in (16, 64):
            for rate in (1e-3, 4e-3, 1.6e-2, 6.4e-2):
                base = {"base_width": 32, "base_depth": 2} if scaled else {"base_width": 0, "base_depth": 0}
                settings = dataclasses.replace(
                    TRAIN, steps=STEPS // 2, learning_rate=rate, optimiser=optimiser, validate_every=STEPS // 2, **base
                )
                run = {"run": kind, "width": width, "rate": rate}
                yield run, lambda s=settings, w=width: {"curve": learn(data, sizes(w, 2), s)}


def plot():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    runs = json.loads((RESULTS / "scaling.json").read_text())
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
    compute, error = [], []
    for run in sorted((r for r in runs if r["run"].startswith("law")), key=lambda r: r["width"]):
        c = np.array([p["step"] * run["flops_per_step"] for p in run["curve"]])
        mse = np.array([p["rmse"] for p in run["curve"]]) ** 2
        left.loglog(c, mse, ".-", label=f"{run['run'][4:]}, {run['parameters'] / 1e3:.0f} k weights")
        compute.append(c), error.append(mse)
    if compute:
        slope, at, low = frontier(np.concatenate(compute), np.concatenate(error))
        left.loglog(at, low, "k--", label=f"best at each compute: C^{slope:.2f}")
        left.loglog(at, low[0] * (at / at[0]) ** -0.85, "0.6", ls=":", label="published: C^-0.85")
        print(f"exponent {slope:.3f}")
    left.set(
        xlabel="compute of training [floating-point operations]", ylabel="held-out mean squared error", title="Scaling"
    )
    left.set_xlim(right=left.get_xlim()[1] * 60)  # room for the legend
    left.legend(fontsize=8, loc="upper right")
    for name in ("adamw", "muon"):
        found = sorted((r["rate"], r["curve"][-1]["mae"]) for r in runs if r["run"] == f"optimiser {name}")
        if found:
            middle.loglog(*zip(*found), "o-", label=name)
    middle.set(xlabel="learning rate", ylabel="held-out MAE", title=f"Optimisers, {STEPS} steps, 32 × 2")
    middle.legend()
    for style, kind in zip(("-", "--", ":"), KINDS):
        for color, width in (("C0", 16), ("C1", 64)):
            found = sorted((r["rate"], r["curve"][-1]["mae"]) for r in runs if r["run"] == kind and r["width"] == width)
            if found:
                right.loglog(*zip(*found), color + "o", ls=style, label=f"width {width}, {kind}")
    right.set(
        xlabel="learning rate (at width 32)", ylabel="held-out MAE", title=f"Rates between widths, {STEPS // 2} steps"
    )
    if right.lines:
        right.legend()
    figure.savefig(RESULTS / "scaling.png", dpi=120)


def frontier(compute, error):
    """Exponent of a power law fitted to the lowest error at each compute, on points that no other beats in both."""
    order = np.argsort(compute)
    compute, error = compute[order], error[order]
    best = error <= np.minimum.accumulate(error)
    x, y = np.log(compute[best]), np.log(error[best])
    slope, level = np.polyfit(x, y, 1)
    return slope, compute[best][[0, -1]], np.exp(level + slope * x[[0, -1]])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simple")
    parser.add_argument("--part", choices=("law", "optimisers", "rates"))
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "scaling")
    parser.add_argument("--plot", action="store_true")
    arguments = parser.parse_args()
    if arguments.plot:
        return plot()
    path, data = RESULTS / "scaling.json", Data(arguments.simple)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for key, run in globals()[arguments.part](data, arguments.minutes, arguments.folder):
        done = json.loads(path.read_text()) if path.exists() else []
        if any(all(entry.get(k) == v for k, v in key.items()) for entry in done):
            continue
        entry = {**key, **run()}
        print(key, entry["curve"][-1], flush=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps([*done, entry], indent=0))
        os.replace(temporary, path)


if __name__ == "__main__":
    main()
