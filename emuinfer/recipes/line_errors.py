"""Makes a table of line errors: `python -m emuinfer.recipes.line_errors optical-fgk DEST`."""

import argparse

import jax.numpy as jnp
import numpy as np

from ..constants import SPEED_OF_LIGHT
from ..emulators import load_emulator
from ..inference import find_optimum
from ..likelihoods import StellarModel
from ..likelihoods.line_errors import PER_DEX, LineErrors
from ..observations import Observation
from ..observations.examples import example_credit


def measure_line_errors(
    emulator, *, example="hd41248", teff=5713.0, logg=4.49, fe_h=-0.37, per_dex=PER_DEX, smooth_kms=3.5
):
    """Relative line errors from a packaged star, with its atmospheric parameters held at the literature's values.

    Abundances, microturbulence, velocity, broadening and continuum are fitted. The error at a wavelength is the root mean
    square residual over that of the depth, both smoothed by a Gaussian of `smooth_kms`.
    """
    from scipy.ndimage import gaussian_filter1d

    observation = Observation.example(example)
    fixed = {"teff": teff, "logg": logg, "fe_h": fe_h}
    model = StellarModel(emulator, observation, priors=fixed, line_errors=None)
    fit = find_optimum(model)
    residual, depth = residual_and_depth(fit)
    rest = model.wavelength / (1 + fit.values["rv"] / SPEED_OF_LIGHT)
    width = smooth_kms / (SPEED_OF_LIGHT * np.median(np.diff(rest)) / np.median(rest))
    smooth = lambda a: np.sqrt(gaussian_filter1d(a**2, width))
    relative = np.clip(smooth(residual) / (smooth(depth) + 0.01), 0, 2)
    meta = {
        "star": observation.name,
        "teff": teff,
        "logg": logg,
        "credit": example_credit(example),
        "median": float(np.median(relative)),
        "smooth_kms": smooth_kms,
    }
    return LineErrors(rest, relative, fe_h=fe_h, per_dex=per_dex, medium=emulator.medium, meta=meta)


def residual_and_depth(fit):
    """Data minus model, over the continuum, and the model's depth 1 − f at a `Fit` of one spectrum; both `(n_pix,)`."""
    values = {k: jnp.float32(v) for k, v in fit.model.complete(fit.values).items()}
    flux = np.asarray(fit.likelihood.normalised_flux(values), float)
    continuum = np.asarray(fit.likelihood.model_flux(values), float) / flux
    return np.asarray(fit.likelihood.flux, float) / continuum - flux, 1.0 - flux


def main(argv=None):
    parser = argparse.ArgumentParser(
        description="Make the table of line errors from the packaged spectrum of HD 41248."
    )
    parser.add_argument("emulator")
    parser.add_argument("destination")
    parser.add_argument("--per-dex", type=float, default=PER_DEX)
    args = parser.parse_args(argv)
    measure_line_errors(load_emulator(args.emulator), per_dex=args.per_dex).save(args.destination)


if __name__ == "__main__":
    main()
