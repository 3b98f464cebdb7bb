"""Build `emuinfer/data/physics/c3k_temperature.npz`: T(tau) fitted to ATLAS12 model atmospheres.

    python -m emuinfer.synthesis.build_temperature_table ATMOSNET_WHEEL

The wheel of `atmosnet` 1.0.1 (MIT licence, D. Nidever & Y.-S. Ting, on PyPI) holds neural networks trained on the C3K grid
of ATLAS12 models (Kurucz 1970, 2005; Conroy et al. 2018, ApJ 854, 139). For models that fill the label domain this
module integrates the optical depth at 5000 Å with our own opacities and fits, at each of a few tens of optical depths,
ln(T/Teff) by a polynomial in (Teff, log g, [Fe/H], [alpha/Fe]) scaled to [-1, 1]. Only the coefficients are shipped.
"""

import argparse
import itertools
import pickle
import zipfile
from pathlib import Path

import numpy as np

from ..labels import OPTICAL_FGK

OUTPUT = Path(__file__).parents[1] / "data" / "physics" / "c3k_temperature.npz"
MEMBER = "atmosnet/data/atmosnet_c3k_300neurons_cool.pkl"
LOG_TAU = np.linspace(-6.0, 1.8, 53)
NAMES = ("teff", "logg", "fe_h", "mg_fe")
DEGREE = 5


class _ArrayUnpickler(pickle.Unpickler):
    """Reads pickles (made with dill) of NumPy arrays in built-in containers, and nothing else."""

    def find_class(self, module, name):
        from numpy._core.multiarray import _reconstruct

        allowed = {
            ("dill._dill", "_get_attr"): lambda _, attribute: {"_reconstruct": _reconstruct}[attribute],
            ("dill._dill", "_import_module"): lambda _: None,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"unexpected class {module}.{name}")
        return allowed[module, name]


def network(parameters: dict, labels: np.ndarray) -> np.ndarray:
    """One column of the model atmospheres, shape (n_models, n_layers): two hidden layers, output in log10."""
    relu = lambda z: np.where(z > 0, z, 0.01 * z)  # noqa: E731
    x = (labels - parameters["x_min"]) / (parameters["x_max"] - parameters["x_min"]) - 0.5
    x = relu(x @ parameters["w_array_0"].T + parameters["b_array_0"])
    x = relu(x @ parameters["w_array_1"].T + parameters["b_array_1"])
    return 10.0 ** (x @ parameters["w_array_2"].T + parameters["b_array_2"])


def sample_domain(n: int) -> np.ndarray:
    """(Teff, log g, [Fe/H], [alpha/Fe]) that fill the domain, its borders included. Shape (n, 4)."""
    from scipy.stats import qmc

    index = [OPTICAL_FGK.index(name) for name in NAMES]
    lower, upper = np.asarray(OPTICAL_FGK.lower)[index], np.asarray(OPTICAL_FGK.upper)[index]
    # arcsine-distributed points: polynomials need more of them near the borders
    unit = 0.5 - 0.5 * np.cos(np.pi * qmc.Halton(4, seed=1).random(2 * n))
    points = lower + unit * (upper - lower)
    return points[points[:, 1] >= points[:, 0] / 1000.0 - 4.4][:n]


def temperature_on_tau(layers: list, labels: np.ndarray) -> np.ndarray:
    """ln(T/Teff) on `LOG_TAU`, shape (n_models, n_tau), from column mass, temperature and pressure of the models."""
    import jax
    import jax.numpy as jnp

    from . import structure
    from .elements import ALPHA, atomic_number, element_data
    from .eos import ElementTables

    solar = element_data()["abundance"] - 12.0
    metal, alpha = np.arange(92) >= 2, np.isin(np.arange(1, 93), [atomic_number(s) for s in ALPHA])
    abundance = 10.0 ** (solar + np.outer(labels[:, 2], metal) + np.outer(labels[:, 3], alpha))
    mass, temperature, pressure = layers[:3]
    mass = np.maximum.accumulate(mass, axis=1)  # the networks are not exactly monotonic
    kappa = jax.jit(jax.vmap(lambda tables, t, p, a: structure.opacity_5000(tables, t, p, a)[0], (None, 0, 0, 0)))(
        ElementTables(), *(jnp.asarray(x, jnp.float32) for x in (temperature, pressure, abundance))
    )
    kappa = np.asarray(kappa, dtype=float)
    tau = 0.5 * kappa[:, :1] * mass[:, :1]  # opacity grows with depth as the pressure
    tau = np.concatenate([tau, tau + np.cumsum(0.5 * (kappa[:, 1:] + kappa[:, :-1]) * np.diff(mass), axis=1)], axis=1)
    rows = [np.interp(LOG_TAU, np.log10(t), np.log(x / y)) for t, x, y in zip(tau, temperature, labels[:, 0])]
    return np.array(rows)


def design_matrix(scaled: np.ndarray, powers: np.ndarray) -> np.ndarray:
    return np.prod(scaled[:, None, :] ** powers, axis=-1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("atmosnet_wheel", type=Path)
    with zipfile.ZipFile(parser.parse_args().atmosnet_wheel) as wheel, wheel.open(MEMBER) as file:
        columns = _ArrayUnpickler(file).load()
    labels = sample_domain(6000)
    ln_ratio = temperature_on_tau([network(c, labels) for c in columns[:3]], labels)
    good = np.all(np.isfinite(ln_ratio), axis=1)
    print(f"{np.sum(~good)} of {len(good)} models left out: not finite")
    labels, ln_ratio = labels[good], ln_ratio[good]
    index = [OPTICAL_FGK.index(name) for name in NAMES]
    centre, half = OPTICAL_FGK.centre[index], OPTICAL_FGK.half_width[index]
    powers = np.array([p for p in itertools.product(range(DEGREE + 1), repeat=4) if sum(p) <= DEGREE and p[3] <= 2])
    matrix = design_matrix((labels - centre) / half, powers)
    train = np.arange(len(labels)) % 10 > 0
    coefficients = np.linalg.lstsq(matrix[train], ln_ratio[train], rcond=None)[0]
    error = (matrix @ coefficients - ln_ratio)[~train]
    layer_error = np.sqrt(np.mean(error**2, axis=0))
    np.savez_compressed(OUTPUT, log_tau=LOG_TAU, powers=powers.astype(np.int8), coefficients=coefficients.astype(np.float32),
                        centre=centre, half_width=half, names=np.array(NAMES), rms=layer_error.astype(np.float32))  # fmt: skip
    inside = (LOG_TAU > -4) & (LOG_TAU < 1)
    print(f"wrote {OUTPUT} ({OUTPUT.stat().st_size / 1000:.0f} kB, {len(powers)} terms)")
    print(f"held-out rms of ln T: {layer_error[inside].mean():.4f} for -4 < log tau < 1, worst layer {layer_error.max():.4f}")


if __name__ == "__main__":
    main()
