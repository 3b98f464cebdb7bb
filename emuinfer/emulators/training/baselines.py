"""Fits of the baselines to labels `(n, n_labels)` and normalised flux `(n, n_wave)` at the same wavelengths.

What is tuned (ridge, early stopping) is tuned on a random part of the spectra given; keep those of a final test apart.
The Gaussian processes are in `gaussian_process`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ...entry import public
from ...errors import TrainingError
from ...grids.split import split_rows
from ...labels.features import monomial_values
from ...wavelengths.pixels import PixelGrid
from ..base import to_link
from ..baselines.pixels import ACTIVATIONS
from ..baselines.regression import LogitPCA, PerPixelMLP, PixelPolynomial
from ..components import principal_components
from ..network import apply_layers

RIDGES = 10.0 ** np.arange(-6, 3.5, 0.5)


@public
def fit_polynomial(
    label_space, labels, flux, wavelength, *, medium, degree=2, saturating=False, epsilon=0.003, seed=0
) -> PixelPolynomial:
    """Per-pixel ridge regression in float64, the ridge chosen on a fifth of the spectra.

    Raises `TrainingError` on arrays that do not fit together or are not finite.
    """
    scaled, flux = check_spectra(label_space, labels, flux, wavelength)
    target = to_link(flux, epsilon) if saturating else flux
    terms = monomial_values(scaled, degree, np)
    fit, held = split_rows(len(flux), 0.2, seed, shuffled=True)
    some = np.linspace(0, flux.shape[1] - 1, min(flux.shape[1], 1000)).astype(int)  # enough pixels to compare ridges
    solve = _ridge(terms[fit], target[fit][:, some])
    errors = [np.abs(terms[held] @ solve(ridge) - target[held][:, some]).mean() for ridge in RIDGES]
    coefficients = _ridge(terms, target)(RIDGES[int(np.argmin(errors))])
    grid = PixelGrid.from_wavelength(wavelength)
    return PixelPolynomial(label_space, grid, medium, degree, saturating, epsilon, coefficients)


def _ridge(terms, target):
    """A function of the ridge: coefficients that minimise |terms c − target|² + ridge |c|², constant unpenalised."""
    centre, mean = terms[:, 1:].mean(0), target.mean(0)
    u, s, v = np.linalg.svd(terms[:, 1:] - centre, full_matrices=False)
    projected = u.T @ (target - mean)

    def solve(ridge):
        slope = v.T @ ((s / (s**2 + ridge))[:, None] * projected)
        return np.concatenate([(mean - centre @ slope)[None], slope])

    return solve


def leading_components(x, most: int):
    """`principal_components` of rows x `(n, p)`: `most` of them, or as many as have any variance."""
    mean, basis, coefficients = principal_components(x, min(most, len(x) - 1, x.shape[1]))
    there = coefficients.any(0)
    return mean, basis[there], coefficients[:, there]


@public
def fit_mlp(
    label_space,
    labels,
    flux,
    wavelength,
    *,
    medium,
    hidden=(300, 300),
    activation="leaky_relu",
    steps=4000,
    learning_rate=1e-3,
    batch=128,
    seed=0,
) -> PerPixelMLP:
    """The Payne's network, mean squared error in flux, Adam with a cosine schedule, early stopping on a tenth.

    The output layer is trained in the orthonormal basis that the training spectra span and then expanded to pixels:
    the loss is the same, and a step costs a tenth. Raises `TrainingError` as `fit_polynomial` does.
    """
    scaled, flux = check_spectra(label_space, labels, flux, wavelength)
    mean, basis, coefficients = leading_components(flux, len(flux))
    fit, held = split_rows(len(flux), 0.1, seed, shuffled=True)
    # One unit for all components keeps the loss that of the flux, and the outputs of order one.
    unit = np.sqrt((coefficients**2).mean())
    target = jnp.asarray(coefficients / unit, jnp.float32)
    inputs = jnp.asarray(0.5 * scaled, jnp.float32)
    grid = PixelGrid.from_wavelength(wavelength)
    small = PixelGrid(0.0, 1.0, basis.shape[0])
    layers = PerPixelMLP(label_space, small, medium, hidden, activation, key=jax.random.key(seed)).layers
    layers = _train_network(
        layers, inputs, target, fit, held, ACTIVATIONS[activation], steps, learning_rate, min(batch, len(fit)), seed,
        "adam",
    )  # fmt: skip
    weight, bias = layers[-1]
    last = (unit * np.asarray(weight) @ basis, unit * np.asarray(bias) @ basis + mean)
    emulator = PerPixelMLP(label_space, grid, medium, hidden, activation, key=jax.random.key(seed))
    layers = layers[:-1] + [tuple(jnp.asarray(a, jnp.float32) for a in last)]
    return replace_leaves(emulator, layers=layers)


@public
def fit_logit_pca(
    label_space,
    labels,
    flux,
    wavelength,
    *,
    medium,
    simple=None,
    components=120,
    hidden=(256, 256),
    n_networks=1,
    epsilon=0.003,
    steps=2000,
    learning_rate=3e-3,
    tune_rate=None,
    weight_decay=None,
    seed=0,
) -> LogitPCA:
    """Principal components of x = log(1/f − 1 + ε), and networks for them trained with AdamW on all spectra at once.

    The loss is the squared error of x (of the standardised coefficients, weighted by their variance). `weight_decay` is
    min(1, 250 / n) unless given; that and the small initial weights were chosen on a part of the training spectra and
    halve the error at 300 spectra.

    `simple`: `(labels, flux)` of many spectra of simpler physics at the same wavelengths, or None. The networks then learn
    these first; the realistic spectra shift the mean and move the networks on, at `tune_rate` (by default
    1e-3 min(1, n / 1000)) and with the decay acting on the differences from what was learned first.

    Raises `TrainingError` as `fit_polynomial` does.
    """
    scaled, flux = check_spectra(label_space, labels, flux, wavelength)
    x, rng = to_link(flux, epsilon), np.random.default_rng(seed)
    sets = [(scaled, x, weight_decay, learning_rate)]
    if simple is None:
        mean, basis, _ = leading_components(x, components)
    else:
        simple_labels, simple_flux = simple
        scaled_simple, flux_simple = check_spectra(label_space, simple_labels, simple_flux, wavelength)
        x_simple = to_link(flux_simple, epsilon)
        mean = x_simple.mean(0)
        tune_rate = tune_rate or 1e-3 * min(1.0, len(x) / 1000)
        rows = np.sort(rng.permutation(len(x_simple))[:2500])
        _, basis, _ = leading_components(np.concatenate([x_simple[rows] - mean, x - x.mean(0)]), components)
        sets = [(scaled_simple, x_simple, weight_decay, learning_rate), (scaled, x, weight_decay, tune_rate)]
    scale = ((sets[0][1] - mean) @ basis.T).std(0)
    grid = PixelGrid.from_wavelength(wavelength)
    emulator = LogitPCA(label_space, grid, medium, len(scale), hidden, n_networks, epsilon, key=jax.random.key(seed))
    as_leaves = lambda **arrays: {k: jnp.asarray(v, jnp.float32) for k, v in arrays.items()}
    emulator = replace_leaves(emulator, **as_leaves(mean=mean, basis=basis, scale=scale))
    for stage, (inputs, x, decay, rate) in enumerate(sets):
        if stage:
            predicted = jax.vmap(emulator.coefficients)(jnp.asarray(inputs, jnp.float32))
            mean = mean + ((x - mean) @ basis.T - np.asarray(predicted)).mean(0) @ basis
        target = jnp.asarray((x - mean) @ basis.T / scale, jnp.float32)
        decay = min(1.0, 250.0 / len(x)) if decay is None else decay
        networks = [
            _train_network(
                layers, jnp.asarray(inputs, jnp.float32), target, np.arange(len(x)), np.arange(0), jax.nn.silu, steps, rate,
                len(x), seed, "adamw", jnp.asarray(scale**2 / (scale**2).mean(), jnp.float32), decay, stage > 0,
            )
            for layers in emulator.networks
        ]  # fmt: skip
        emulator = replace_leaves(emulator, networks=networks, **as_leaves(mean=mean))
    return emulator


def _train_network(
    layers,
    inputs,
    target,
    fit,
    held,
    activation,
    steps,
    learning_rate,
    batch,
    seed,
    method,
    weights=1.0,
    decay=0.0,
    tune=False,
):
    """Minimise the weighted mean squared error; with held-out rows, return the layers that were best on them.

    With `tune`, what is learned, and decays, is the difference from the given layers (L2-SP; Li et al. 2018, arXiv:1802.01483).
    """
    import optax

    schedule = optax.cosine_decay_schedule(learning_rate, steps)
    optimiser = optax.adam(schedule) if method == "adam" else optax.adamw(schedule, weight_decay=decay)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optimiser)

    add = lambda base, layers: jax.tree.map(jnp.add, base, layers)
    base = layers if tune else jax.tree.map(jnp.zeros_like, layers)
    layers = jax.tree.map(jnp.zeros_like, layers) if tune else layers

    def loss(layers, base, x, y):
        return jnp.mean(weights * (apply_layers(add(base, layers), x, activation) - y) ** 2)

    @jax.jit
    def run(layers, state, rows, base, inputs, target):
        def step(carry, row):
            layers, state = carry
            value, gradient = jax.value_and_grad(loss)(layers, base, inputs[row], target[row])
            updates, state = optimiser.update(gradient, state, layers)
            return (optax.apply_updates(layers, updates), state), value

        return jax.lax.scan(step, (layers, state), rows)

    state, rng = optimiser.init(layers), np.random.default_rng(seed)
    best, best_error, chunk = layers, np.inf, 100
    for first in range(0, steps, chunk):
        n = min(chunk, steps - first)
        full = batch >= len(fit)
        rows = np.stack([fit if full else rng.choice(fit, batch, replace=False) for _ in range(n)])
        (layers, state), values = run(layers, state, rows, base, inputs, target)
        if not np.isfinite(values[-1]):
            raise TrainingError(
                f"The loss is not finite at step {first + n}. Lower learning_rate (now {learning_rate:g})."
            )
        error = float(loss(layers, base, inputs[held], target[held])) if len(held) else -float(first)
        if error < best_error:
            best, best_error = layers, error
    return add(base, best)


def check_spectra(label_space, labels, flux, wavelength):
    """Scaled labels and flux, float64; raises `TrainingError` on shapes that disagree or values not finite."""
    labels, flux = np.asarray(labels, np.float64), np.asarray(flux, np.float64)
    expected = (len(labels), np.size(wavelength))
    if labels.ndim != 2 or labels.shape[1] != len(label_space) or flux.shape != expected:
        raise TrainingError(
            f"labels must be (n, {len(label_space)}) and flux (n, {np.size(wavelength)}); "
            f"got {labels.shape} and {flux.shape}."
        )
    if len(labels) < 10:
        raise TrainingError(f"At least 10 spectra are needed to train an emulator; got {len(labels)}.")
    bad = np.flatnonzero(~(np.isfinite(labels).all(1) & np.isfinite(flux).all(1)))
    if bad.size:
        raise TrainingError(
            f"{bad.size} spectra hold values that are not finite, e.g. rows {bad[:5].tolist()}. Remove them."
        )
    return (labels - label_space.centre) / label_space.half_width, flux


def replace_leaves(module, **leaves):
    """The module with some of its fields replaced."""
    import equinox as eqx

    return eqx.tree_at(lambda m: [getattr(m, name) for name in leaves], module, list(leaves.values()))
