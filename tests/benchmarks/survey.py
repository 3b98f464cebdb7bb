"""Throughput of many stars: `python -m tests.benchmarks.survey [--stars N] [--workers 2]` from the repository's root.

Mock stars of `optical-fgk` (labels that fill its domain, velocities over ±200 km/s, a tilted continuum, noise) at R = 28,000
and 2.5 pixels per resolution element: all 12 labels, velocity, broadening, jitter and continuum are free. Reports stars per
second without compilation, effective sizes, R-hat, cost per star against the number of stars, memory; and, beside it in the
same run, NumPyro's own NUTS star by star on the same reduced emulator, and on the full emulator, over all pixels.
"""

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from pathlib import Path

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np

import emuinfer as ei
from emuinfer.forward.operator import SpectrumOperator
from emuinfer.labels.design import sobol_design
from emuinfer.survey import fit_many
from emuinfer.wavelengths.uniform import log_grid

R, SAMPLING = 28_000, 2.5
RESULTS = Path(__file__).parent / "results"


def mock(path, n, snr, seed=0, chunk=64):
    """A stack of mock stars; returns their labels."""
    emulator = ei.load_emulator("optical-fgk")
    space, rng = emulator.label_space, np.random.default_rng(seed)
    grid = log_grid(*emulator.wavelength_range, 1.0)
    wavelength = 5105 * np.exp(np.arange(int(np.log(5295 / 5105) * R * SAMPLING)) / (R * SAMPLING))
    operator, table = SpectrumOperator(grid, wavelength, R), emulator.tabulate(emulator.prepare(grid))
    labels = sobol_design(space, n, seed=77 + seed)
    rv, vbroad = rng.uniform(-200, 200, n), rng.uniform(2, 6, n)

    @eqx.filter_jit
    def spectra(table, operator, scaled, rv, vbroad):
        return jax.vmap(lambda s, v, b: operator(table.grid_flux(s), v, b))(scaled, rv, vbroad)

    tilt = 1 + 0.1 * np.linspace(-1, 1, len(wavelength))
    with h5py.File(path, "w") as file:
        file["wavelength"] = wavelength
        file.attrs["medium"], file.attrs["resolution"] = "air", R
        flux, sigma = (file.create_dataset(k, (n, len(wavelength)), "f4") for k in ("flux", "uncertainty"))
        for i in range(0, n, chunk):
            rows = (np.arange(i, i + chunk)) % n
            scaled = jnp.asarray(space.scale(labels[rows]), jnp.float32)
            some = np.asarray(
                spectra(table, operator, scaled, *(jnp.asarray(a[rows], jnp.float32) for a in (rv, vbroad)))
            )
            stop = min(i + chunk, n)
            flux[i:stop] = (1000 * tilt * (some + rng.standard_normal(some.shape) / snr))[: stop - i]
            sigma[i:stop] = np.broadcast_to(1000 * tilt / snr, some.shape)[: stop - i]
        flux[n // 2] = np.nan  # a star without data, which must harm no other
    return labels, wavelength


def survey(path, labels, folder, workers, batch):
    begin = time.perf_counter()
    table = fit_many("optical-fgk", path, folder, line_errors=None, workers=workers, batch=batch, progress=True)
    wall = time.perf_counter() - begin
    names = table.meta["PARAMS"].split(",")[:12]
    bad = np.flatnonzero(np.asarray(table["flag"]) & 1)
    everything_else_finite = bool(np.isfinite(np.delete(np.asarray(table["covariance"]), bad, axis=0)).all())
    table, labels = table[np.setdiff1d(np.arange(len(table)), bad)], np.delete(labels, bad, axis=0)
    seconds = np.asarray(table["seconds"])
    ess = np.stack([np.asarray(table[f"{n}_ess"]) for n in names], 1)
    r_hat = np.stack([np.asarray(table[f"{n}_r_hat"]) for n in names], 1)
    pull = np.stack(
        [(np.asarray(table[n]) - labels[:, i]) / np.asarray(table[f"{n}_sd"]) for i, n in enumerate(names)], 1
    )
    flag = np.asarray(table["flag"])
    return {
        "stars": len(table) + len(bad),
        "without_data": bad.tolist(),
        "all_others_finite": everything_else_finite,
        "wall_s": wall,
        "seconds_per_star_and_process": float(np.median(seconds)),
        "stars_per_second": workers / float(np.median(seconds)),
        "workers": workers,
        "batch": batch,
        "ess_all_labels_400": float((ess.min(1) >= 400).mean()),
        "ess_median": float(np.median(ess)),
        "ess_p5": float(np.quantile(ess, 0.05)),
        "r_hat_all_labels_1.01": float((r_hat.max(1) < 1.01).mean()),
        "verification_failed": float((flag & 32 > 0).mean()),
        "repaired": float(np.asarray(table["repaired"]).mean()),
        "pull_sd": dict(zip(names, np.round(np.nanstd(pull, 0), 3).tolist())),
        "within_68": float(np.mean(np.abs(pull) < 1)),
        "peak_memory_mb_of_a_worker": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    }


def numpyro_nuts(path, wavelength, stars, full, warmup, draws):
    """Seconds per star and bulk effective sizes of NumPyro's NUTS over all pixels, one star after another, compilation apart."""
    import arviz
    from numpyro.infer import MCMC, NUTS, init_to_value

    emulator = ei.load_emulator("optical-fgk")
    rows = []
    with h5py.File(path) as file:
        spectra = [
            (np.asarray(file["flux"][i], float), np.asarray(file["uncertainty"][i], float)) for i in range(stars + 1)
        ]
    from emuinfer.survey.batch import Stars, with_star
    from emuinfer.survey.model import Survey

    survey = Survey(emulator, wavelength, R, "air", line_errors=None, progress=False)
    model = survey.model
    kernel = mcmc = None
    for i, (flux, sigma) in enumerate(spectra):
        observation = ei.Observation(wavelength, flux, sigma, resolution=R, medium="air", clip=None)
        arrays, start, _ = survey.prepare(observation)
        data = with_star(model.likelihood, Stars(**{k: jnp.asarray(v, jnp.float32) for k, v in arrays.items()}))
        if full:
            data = data.with_emulators(survey.full)
        values = {k: jnp.asarray(v) for k, v in survey.density.constrain(jnp.asarray(start)).items()}
        kernel = NUTS(model, dense_mass=True, init_strategy=init_to_value(values=values), max_tree_depth=8)
        mcmc = MCMC(kernel, num_warmup=warmup, num_samples=draws, num_chains=1, progress_bar=False, jit_model_args=True)
        begin = time.perf_counter()
        mcmc.warmup(jax.random.key(i), data)
        middle = time.perf_counter()
        mcmc.run(jax.random.key(i), data)
        first = time.perf_counter() - middle
        middle = time.perf_counter()
        mcmc.post_warmup_state = mcmc.last_state
        mcmc.run(jax.random.key(i + 1), data)
        seconds = time.perf_counter() - middle  # compiled by now: sampling alone
        x = mcmc.get_samples()
        ess = min(float(arviz.ess(np.asarray(x[n])[None])) for n in model.label_space.names)
        rows.append(
            {"sampling_s": seconds, "first_s": first, "warmup_with_compilation_s": middle - begin - first, "ess": ess}
        )
        print("full" if full else "reduced", i, rows[-1], flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stars", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--snr", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument(
        "--numpyro", type=int, default=3, help="stars for NumPyro's NUTS on the reduced emulator; 0 skips it"
    )
    args = parser.parse_args()
    facts = {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "jax": jax.__version__,
        "snr": args.snr,
        "R": R,
        "load": os.getloadavg()[0],
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for n in args.stars:
            labels, wavelength = mock(folder / f"{n}.h5", n, args.snr)
            rows.append(survey(str(folder / f"{n}.h5"), labels, folder / f"run-{n}", args.workers, args.batch))
            print(json.dumps(rows[-1], indent=1), flush=True)
            write({**facts, "pixels": len(wavelength), "survey": rows})
        if args.numpyro:
            peers = {}
            path = folder / f"{args.stars[0]}.h5"
            for name, full, stars, warmup, draws in (
                ("reduced emulator", False, args.numpyro, 300, 500),
                ("optical-fgk", True, 1, 100, 60),
            ):
                peers[name] = {
                    "warmup": warmup,
                    "draws": draws,
                    "stars": numpyro_nuts(path, wavelength, stars, full, warmup, draws),
                }
                write({**facts, "pixels": len(wavelength), "survey": rows, "numpyro_nuts": peers})


def write(content):
    (RESULTS / "survey.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
