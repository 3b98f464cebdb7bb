"""Korg + MARCS spectra with three labels: polynomials against everything else.

    python -m tests.benchmarks.korg_marcs

700 of 800 spectra of 500 pixels (5000-5010 Å) train, 100 are held out. On three labels and a smooth grid a polynomial of high
degree is hard to beat; the table says by how much. Writes `results/korg_marcs.json`.
"""

import itertools
import json
import time
from pathlib import Path

import jax
import numpy as np

from emuinfer.emulators import TransformerConfig, TransformerPayne
from emuinfer.emulators.training import fit_logit_gp, fit_logit_pca, fit_mlp
from emuinfer.emulators.training.start import start_from_components, start_from_teacher
from emuinfer.labels.space import LabelSpace

DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "korg_marcs" / "korg_marcs_5000_5010.npz"
RESULTS = Path(__file__).parent / "results" / "korg_marcs.json"


def legendre(scaled, degree):
    """Products of Legendre polynomials of total degree up to `degree`, `(n, n_terms)`."""
    one = [np.polynomial.legendre.legvander(scaled[:, i], degree) for i in range(scaled.shape[1])]
    powers = [p for p in itertools.product(range(degree + 1), repeat=scaled.shape[1]) if sum(p) <= degree]
    return np.stack([np.prod([one[i][:, k] for i, k in enumerate(p)], axis=0) for p in powers], axis=1)


def main():
    data = np.load(DATA)
    flux, labels = data["flux"], data["labels"].astype(float)
    # The pixels are equal steps in ln(wavelength) and are never interpolated here: any equal steps do for their names.
    wavelength = np.linspace(data["wavelength"][0], data["wavelength"][-1], flux.shape[1])
    space = LabelSpace(("teff", "logg", "fe_h"), (4500, 2.5, -0.3), (7000, 5.0, 0.3))
    order = np.random.default_rng(0).permutation(len(flux))
    test, train = order[:100], order[100:]
    scaled = np.asarray(space.scale(labels))
    fits = {"mean spectrum": lambda: np.broadcast_to(flux[train].mean(0), (100, flux.shape[1]))}
    for degree in (4, 6, 8):
        fits[f"Legendre, degree {degree}"] = lambda d=degree: (
            legendre(scaled[test], d)
            @ np.linalg.lstsq(legendre(scaled[train], d), flux[train].astype(float), rcond=None)[0]
        )
    ours = {"medium": "air"}
    call = lambda emulator: np.asarray(emulator(labels[test], wavelength))
    given = space, labels[train], flux[train], wavelength
    kept = {}

    def process():
        kept["teacher"] = fit_logit_gp(*given, **ours, components=60)
        return call(kept["teacher"])

    def transformer(start):
        config = TransformerConfig(
            width=32, depth=1, label_hidden=256, rank=40, table_nodes=len(wavelength), branch_theta=True
        )
        fresh = TransformerPayne(space, (wavelength[0], wavelength[-1]), "air", config, key=jax.random.key(0))
        return call(start(fresh))

    fits |= {
        "The Payne, 300 + 300": lambda: call(fit_mlp(*given, **ours)),
        "x, 60 components, network": lambda: call(fit_logit_pca(*given, **ours, components=60)),
        "x, Gaussian processes": process,
        "transformer, from components": lambda: transformer(
            lambda e: start_from_components(e, labels[train], flux[train], wavelength, progress=False)
        ),
        "transformer, from the Gaussian processes": lambda: transformer(
            lambda e: start_from_teacher(e, kept["teacher"], n=16384, steps=6000, progress=False)
        ),
    }
    rows = {}
    for name, fit in fits.items():
        began = time.time()
        error = np.abs(fit() - flux[test])
        rows[name] = {
            "mae": float(error.mean()),
            "p95": float(np.percentile(error, 95)),
            "max": float(error.max()),
            "seconds": round(time.time() - began, 1),
        }
        print(f"{name:42s}", rows[name], flush=True)
    above = flux.max()
    RESULTS.write_text(
        json.dumps({"train": 700, "test": 100, "seed": 0, "highest_flux": float(above), "rows": rows}, indent=1)
    )


if __name__ == "__main__":
    main()
