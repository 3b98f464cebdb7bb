"""Build `emuinfer/data/physics/c3k_temperature.npz`: T(tau) fitted to ATLAS12 model atmospheres.

    python -m emuinfer.recipes.temperature_table ATMOSNET_WHEEL

The wheel of `atmosnet` 1.0.1 (MIT licence, D. Nidever & Y.-S. Ting, on PyPI) holds neural networks trained on the C3K grid
of ATLAS12 models (Kurucz 1970, 2005; Conroy et al. 2018, ApJ 854, 139). For models that fill the label domain this
module integrates the optical depth at 5000 Å with our own opacities and fits ln(T/Teff) at a few tens of optical depths
by a small smooth network of (Teff, log g, [Fe/H], [alpha/Fe]), scaled to [-1, 1]: two hidden layers with tanh. Only its
weights are shipped. (Polynomials of degree 5 to 8 are 1.5 to 2 times worse: convection sets in within a narrow range.)
"""

import argparse
import zipfile
from pathlib import Path

import numpy as np

from ..files import write_arrays
from ..labels.data_files import DATA
from ..labels.space import LabelSpace
from ..labels.windows import window
from ..synthesis.atmosphere import ArrayUnpickler, network

OUTPUT = DATA / "physics" / "c3k_temperature.npz"
MEMBER = "atmosnet/data/atmosnet_c3k_300neurons_cool.pkl"
LOG_TAU = np.linspace(-6.0, 1.8, 53)
NAMES = ("teff", "logg", "fe_h", "mg_fe")
HIDDEN = 96
BEYOND = 0.1  # of the constraints, dex of log g
SCALE = 0.03  # of ln(T/Teff) about its mean


def sample_domain(space: LabelSpace, n: int) -> np.ndarray:
    """(Teff, log g, [Fe/H], [alpha/Fe]) that fill the domain, its borders included and somewhat beyond its constraints.

    Shape (n, 4).
    """
    from scipy.stats import qmc

    index = [space.index(name) for name in NAMES]
    lower, upper = np.asarray(space.lower)[index], np.asarray(space.upper)[index]
    # arcsine-distributed points: polynomials need more of them near the borders
    unit = 0.5 - 0.5 * np.cos(np.pi * qmc.Halton(4, seed=1).random(2 * n))
    points = lower + unit * (upper - lower)
    matrix, bound = space.constraint_matrix()
    return points[(points @ matrix[:, index].T <= bound + BEYOND).all(axis=1)][:n]


def temperature_on_tau(layers: list, labels: np.ndarray) -> np.ndarray:
    """ln(T/Teff) on `LOG_TAU`, shape (n_models, n_tau), from column mass, temperature and pressure of the models."""
    import jax
    import jax.numpy as jnp

    from ..synthesis import structure
    from ..synthesis.elements import ALPHA, atomic_number, element_data
    from ..synthesis.eos import ElementTables

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


def fit(x: np.ndarray, target: np.ndarray, weight: np.ndarray, steps: int, batch: int = 1024) -> list[np.ndarray]:
    """Weights [W0, b0, W1, b1, W2, b2] of the network x -> target by Adam with cosine decay."""
    import jax
    import jax.numpy as jnp
    import optax

    from ..synthesis.structure import small_network

    sizes, rng = (x.shape[1], HIDDEN, HIDDEN, target.shape[1]), np.random.default_rng(0)
    parameters = []
    for n_in, n_out in zip(sizes[:-1], sizes[1:]):
        parameters += [rng.normal(size=(n_in, n_out)) / np.sqrt(n_in), 0.3 * rng.normal(size=n_out)]
    parameters = [jnp.asarray(p, jnp.float32) for p in parameters]
    inputs, outputs, weights = (jnp.asarray(v, jnp.float32) for v in (x, target, weight))
    optimiser = optax.adam(optax.cosine_decay_schedule(4e-3, steps))

    @jax.jit
    def step(parameters, state, key):
        pick = jax.random.randint(key, (batch,), 0, len(inputs))
        loss = lambda p: jnp.mean(((small_network(p, inputs[pick]) - outputs[pick]) * weights) ** 2)
        updates, state = optimiser.update(jax.grad(loss)(parameters), state)
        return optax.apply_updates(parameters, updates), state

    state = optimiser.init(parameters)
    for key in jax.random.split(jax.random.key(0), steps):
        parameters, state = step(parameters, state, key)
    return [np.asarray(p) for p in parameters]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("atmosnet_wheel", type=Path)
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--window", help="whose label domain is to be filled; the first by default")
    arguments = parser.parse_args(argv)
    space = window(arguments.window).label_space
    with zipfile.ZipFile(arguments.atmosnet_wheel) as wheel, wheel.open(MEMBER) as file:
        columns = ArrayUnpickler(file).load()
    labels = sample_domain(space, 24_000)
    layers = [network(c, labels) for c in columns[:3]]
    parts = np.array_split(np.arange(len(labels)), 12)
    ln_ratio = np.concatenate([temperature_on_tau([column[p] for column in layers], labels[p]) for p in parts])
    good = np.all(np.isfinite(ln_ratio), axis=1)
    print(f"{np.sum(~good)} of {len(good)} models left out: not finite", flush=True)
    labels, ln_ratio = labels[good], ln_ratio[good]
    index = [space.index(name) for name in NAMES]
    centre, half = space.centre[index], space.half_width[index]
    scaled, mean = (labels - centre) / half, ln_ratio.mean(axis=0)
    train = np.arange(len(labels)) % 10 > 0
    formed = (LOG_TAU > -4) & (LOG_TAU < 0.7)
    weight = np.where(formed, 1.0, 0.4)
    parameters = fit(scaled[train], (ln_ratio[train] - mean) / SCALE, weight, arguments.steps)
    # the scale and mean go into the last layer
    parameters[4], parameters[5] = parameters[4] * SCALE, (parameters[5] * SCALE + mean).astype(np.float32)

    from ..synthesis.structure import small_network

    error = np.asarray(small_network(parameters, scaled[~train].astype(np.float32)), float) - ln_ratio[~train]
    layer_error = np.sqrt(np.mean(error**2, axis=0))
    about = {"log_tau": LOG_TAU, "centre": centre, "half_width": half, "names": np.array(NAMES)}
    weights = {f"p{i}": p for i, p in enumerate(parameters)}
    write_arrays(OUTPUT, {**about, "rms": layer_error.astype(np.float32), **weights})
    print(f"wrote {OUTPUT} ({OUTPUT.stat().st_size / 1000:.0f} kB)")
    for low, high in ((4000, 4500), (4500, 5000), (5000, 6000), (6000, 7000)):
        chosen = (labels[~train, 0] >= low) & (labels[~train, 0] < high)
        rms = np.sqrt(np.mean(error[chosen][:, formed] ** 2))
        print(f"held-out rms of ln T, -4 < log tau < 0.7, {low} <= Teff < {high}: {rms:.4f}")


if __name__ == "__main__":
    main()
