"""Controls for the any-to-any network of stars: gradient boosting and small networks, each trained for one question.

    python -m tests.benchmarks.stars_xp_baselines --keep FOLDER [--trees 6000] [--threads 1] [--only main mlp generative subsets rest]

Needs `xgboost` (or `xgboost-cpu`), `scikit-learn` and `dust_extinction`, in an environment of its own if you like; emuinfer is
not imported. Each fit leaves an npz in FOLDER with its answers for each star of splits 1 and 2, and is not repeated. The numbers
go to results/stars_xp_baselines.json. XGBoost stops early by split 1, so that its scores there flatter it; split 2 is clean.
"""

import argparse
import functools
import json
import os
import platform
import time
from importlib import metadata
from pathlib import Path

import numpy as np

from tests.benchmarks.stars_xp_kit import (
    A_K_PAIR,
    COLOURS,
    DRAWN,
    INPUTS,
    KIT,
    LABELS,
    RESULTS,
    SUBSET_SEED,
    THREE,
    Kit,
    extinction_curve,
    log_scatter,
    scatter,
    subsets,
)

BOOSTING = {
    "learning_rate": 0.04,
    "max_depth": 6,
    "min_child_weight": 5,
    "subsample": 0.8,
    "colsample_bytree": 0.4,
    "reg_lambda": 2.0,
    "tree_method": "hist",
    "early_stopping_rounds": 60,
    "random_state": 0,
}
SPLITS = (1, 2)


def boosted(kit, label, columns, options):
    """Answers of XGBoost for one label from some of the 93 inputs."""
    import xgboost

    rows = {s: kit.rows(s, kit.chosen, label) for s in (0, *SPLITS)}
    x, y = kit.inputs[:, columns], kit.label[label]
    centre, scale = y[rows[0]].mean(), y[rows[0]].std()
    z = (y - centre) / scale
    model = xgboost.XGBRegressor(**BOOSTING, **options)
    model.fit(x[rows[0]], z[rows[0]], eval_set=[(x[rows[1]], z[rows[1]])], verbose=False)
    out = {
        "n_train": len(rows[0]),
        "trees": model.best_iteration + 1,
        "of_trees": options["n_estimators"],
        "columns": columns,
    }
    for s in SPLITS:
        out |= {f"rows_{s}": rows[s], f"answer_{s}": model.predict(x[rows[s]]) * scale + centre}
    return out


def three_networks(kit):
    """Mean of three MLPs for Teff, log g and [Fe/H] from the 93 inputs; stars without a colour are left out."""
    from sklearn.neural_network import MLPRegressor

    complete = kit.chosen & np.isfinite(kit.inputs).all(1)
    rows = {s: kit.rows(s, complete) for s in (0, *SPLITS)}
    x = kit.inputs.astype(float)
    centre = np.median(x[rows[0]], 0)
    x = np.clip((x - centre) / (1.4826 * np.median(np.abs(x[rows[0]] - centre), 0) + 1e-9), -8, 8)
    y = np.stack([kit.label[k] for k in THREE], 1)
    mean, sd = y[rows[0]].mean(0), y[rows[0]].std(0)
    models = [
        MLPRegressor(
            hidden_layer_sizes=(256, 128),
            alpha=1e-3,
            early_stopping=True,
            max_iter=60,
            random_state=seed,
            learning_rate_init=1e-3,
            batch_size=256,
        ).fit(x[rows[0]], ((y - mean) / sd)[rows[0]])
        for seed in range(3)
    ]
    out = {"n_train": len(rows[0])}
    for s in SPLITS:
        each = np.stack([m.predict(x[rows[s]]) * sd + mean for m in models])
        out |= {f"rows_{s}": rows[s], f"answer_{s}": each.mean(0), f"each_{s}": each}
    return out


def spectra_from_labels(kit):
    """ln of the bins of 396-976 nm from five labels, and two spectra of each star that differ in A_K alone."""
    from sklearn.neural_network import MLPRegressor

    y = kit.label
    x = np.stack([5040 / y["teff"], *(y[k] for k in LABELS[1:])], 1)
    log = np.log(np.clip(kit.bins, 1e-3, None))[:, DRAWN]
    rows = {s: kit.rows(s, kit.generated) for s in (0, *SPLITS)}
    mean, sd = x[rows[0]].mean(0), x[rows[0]].std(0)
    model = MLPRegressor(
        hidden_layer_sizes=(96, 96), early_stopping=True, max_iter=120, random_state=0, learning_rate_init=2e-3
    ).fit(((x - mean) / sd)[rows[0]], log[rows[0]])
    out = {"n_train": len(rows[0])}
    for s in SPLITS:
        answer = model.predict(((x - mean) / sd)[rows[s]])
        out |= {f"rows_{s}": rows[s], f"answer_{s}": answer, f"residual_{s}": answer - log[rows[s]]}
        pair = np.repeat(x[kit.extinction_rows(s)][None], 2, 0)
        pair[..., 4] = np.array(A_K_PAIR)[:, None]
        out[f"pair_{s}"] = np.stack([model.predict((p - mean) / sd) for p in pair])
    return out


def painted(kit, fit):
    """ln of the RP bins from those of BP, both relative to the mean flux of BP; `fit(x, y)` gives the predictor."""
    rows = {s: kit.rows(s, kit.painted) for s in (0, *SPLITS)}
    predict = fit(*kit.painting(rows[0]))
    out = {"n_train": len(rows[0])}
    for s in SPLITS:
        x, y = kit.painting(rows[s])
        answer = predict(x)
        out |= {f"rows_{s}": rows[s], f"answer_{s}": answer, f"residual_{s}": answer - y}
    return out


def ridge(x, y):
    from sklearn.linear_model import RidgeCV

    return RidgeCV(np.logspace(-4, 2, 7)).fit(x, y).predict


def painter(x, y):
    from sklearn.neural_network import MLPRegressor

    mean, sd = x.mean(0), x.std(0)
    model = MLPRegressor(hidden_layer_sizes=(128, 96), early_stopping=True, max_iter=80, random_state=0)
    model.fit((x - mean) / sd, y)
    return lambda new: model.predict((new - mean) / sd)


def jobs(kit, options):
    """Every fit by group and name."""
    everything = np.arange(len(INPUTS))
    xgb = lambda label, columns: functools.partial(boosted, kit, label, columns, options)
    return {
        "mlp": {"mlp_labels": functools.partial(three_networks, kit)},
        "generative": {
            "labels_to_xp_mlp": functools.partial(spectra_from_labels, kit),
            "bp_to_rp_ridge": functools.partial(painted, kit, ridge),
            "bp_to_rp_mlp": functools.partial(painted, kit, painter),
        },
        "main": {f"xgb_{k}": xgb(k, everything) for k in THREE},
        "subsets": {f"xgb_subset{i}_{k}": xgb(k, c) for i, c in enumerate(subsets()) for k in THREE},
        "rest": {f"xgb_{k}": xgb(k, everything) for k in LABELS[3:]},
    }


def run(work, path):
    """The fit's answers, from its file or made and kept."""
    if path.exists():
        return
    clock, cpu = time.perf_counter(), time.process_time()
    out = work()
    out |= {"wall_s": time.perf_counter() - clock, "cpu_s": time.process_time() - cpu}
    temporary = path.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, **out)
    os.replace(temporary, path)
    print(time.strftime("%H:%M"), path.stem, {k: v for k, v in out.items() if np.ndim(v) == 0}, flush=True)


def scores(kit, name, answer, split):
    """The numbers of one kept fit."""
    rows, given = answer[f"rows_{split}"], answer[f"answer_{split}"]
    if name == "mlp_labels":
        each = answer[f"each_{split}"]
        out = {k: scatter(given[:, j] - kit.label[k][rows]) for j, k in enumerate(THREE)}
        single = [[scatter(e[:, j] - kit.label[k][rows])["robust_sd"] for e in each] for j, k in enumerate(THREE)]
        return out | {"robust_sd_of_each": dict(zip(THREE, single))}
    if f"residual_{split}" in answer:
        out = log_scatter(answer[f"residual_{split}"])
        if f"pair_{split}" in answer:
            out["extinction_curve"] = extinction_curve(*answer[f"pair_{split}"], gordon2023(kit))[0]
        return out
    label = name.split("_", 2 if "subset" in name else 1)[-1]
    return scatter(given - kit.label[label][rows])


def table(kit, folder, groups):
    """All numbers so far, on the validation and the test split."""
    out = {}
    for fits in groups.values():
        for name in fits:
            path = folder / f"{name}.npz"
            if not path.exists():
                continue
            with np.load(path) as file:
                answer = dict(file)
            out[name] = {
                k: answer[k].item() for k in ("n_train", "trees", "of_trees", "wall_s", "cpu_s") if k in answer
            }
            if "subset" in name:
                out[name]["inputs"] = [INPUTS[i] for i in answer["columns"]]
            out[name] |= {{1: "validation", 2: "test"}[s]: scores(kit, name, answer, s) for s in SPLITS}
    return out


def gordon2023(kit):
    """A(λ)/A_K at R_V = 3.1 at the generated bins (Gordon et al. 2023, `dust_extinction`)."""
    from astropy import units as u
    from dust_extinction.parameter_averages import G23

    law = G23(Rv=3.1)
    return law(kit.wave[DRAWN] * 1e-3 * u.micron) / float(law(2.17 * u.micron))


def report(kit, folder, groups):
    """What results/stars_xp_baselines.json says."""
    packages = {name: metadata.version(name) for name in ("numpy", "scikit-learn", "dust-extinction")}
    boosters = {d.name: d.version for d in metadata.distributions() if d.name in ("xgboost", "xgboost-cpu")}
    return {
        "boosting": BOOSTING,
        "inputs": f"90 coefficients, {', '.join(COLOURS)}",
        "subset_seed": SUBSET_SEED,
        "versions": {**packages, **boosters, "python": platform.python_version(), "machine": platform.machine()},
        "gordon2023_a_over_a_k": gordon2023(kit).tolist(),
        "fits": table(kit, folder, groups),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, required=True, help="folder of the answers star by star")
    parser.add_argument("--trees", type=int, default=6000)
    parser.add_argument("--threads", type=int, default=1, help="of XGBoost")
    parser.add_argument("--only", nargs="*", default=["main", "mlp", "generative", "subsets", "rest"])
    parser.add_argument("--kit", type=Path, default=KIT)
    parser.add_argument("--output", type=Path, default=RESULTS / "stars_xp_baselines.json")
    given = parser.parse_args()
    given.keep.mkdir(parents=True, exist_ok=True)
    kit = Kit(given.kit)
    groups = jobs(kit, {"n_estimators": given.trees, "n_jobs": given.threads})
    for group in given.only:
        for name, work in groups[group].items():
            run(work, given.keep / f"{name}.npz")
    given.output.write_text(json.dumps(report(kit, given.keep, groups), indent=1) + "\n")


if __name__ == "__main__":
    main()
