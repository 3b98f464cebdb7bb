"""The compressed likelihood against the one over all pixels, and the covariance of errors against dense matrices."""

import jax.numpy as jnp
import numpy as np
import pytest

import emuinfer as ei
from emuinfer.forward.continuum import Continuum
from emuinfer.inference import find_optimum
from emuinfer.likelihoods.compressed import HIGHEST, LOWEST, NODES, _spline_inverse, nodes, spline


def test_spline_goes_through_its_nodes_and_is_smooth():
    f = lambda x: np.log1p(1e5 * 10 ** (2 * x))
    c = jnp.asarray(_spline_inverse() @ f(nodes()), jnp.float32)[:, None]
    x = np.linspace(LOWEST + 0.3, HIGHEST - 0.3, 77)
    assert max(abs(float(spline(c, t)[0]) - f(t)) for t in nodes()[4:-4]) < 1e-4
    assert max(abs(float(spline(c, t)[0]) - f(t)) for t in x) < 1e-4
    assert len(nodes()) == NODES and float(spline(c, HIGHEST + 3)[0]) == pytest.approx(float(spline(c, HIGHEST)[0]))


def test_factors_against_a_dense_covariance():
    rng = np.random.default_rng(0)
    n, terms, rank = 120, 3, 4
    wavelength = np.linspace(5000.0, 5010.0, n)
    model = 1 - 0.5 * rng.random(n)
    factors = 0.02 * rng.standard_normal((rank, n))
    variance = 1e-4 * (1 + rng.random(n))
    used = rng.random(n) > 0.1
    data = (
        model * (1.01 + 0.005 * np.linspace(-1, 1, n))
        + factors.T @ rng.standard_normal(rank)
        + np.sqrt(variance) * rng.standard_normal(n)
    )
    continuum = Continuum(wavelength, terms, prior_sd=0.3)
    as32 = lambda a: jnp.asarray(a, jnp.float32)
    ivar = np.where(used, 1 / variance, 0.0)
    got, _ = continuum.log_likelihood(as32(model), as32(data), as32(ivar), as32(1 / variance), as32(factors))

    basis = np.asarray(continuum.basis[:terms], float) * model
    covariance = np.diag(variance) + factors.T @ factors + 0.3**2 * basis.T @ basis
    k = np.ix_(used, used)
    residual = (data - basis.T @ np.asarray(continuum.mean, float))[used]
    log_det = np.linalg.slogdet(covariance[k])[1] - np.log(variance[used]).sum()
    want = -0.5 * (residual @ np.linalg.solve(covariance[k], residual) + log_det)
    assert float(got) == pytest.approx(want, abs=0.02)


def test_compressed_is_the_likelihood_of_the_pixels(tiny_emulator, tiny_observation):
    model = ei.StellarModel(tiny_emulator, tiny_observation, line_errors=None, progress=False)
    fit = find_optimum(model, progress=False)
    rng = np.random.default_rng(1)
    pixels, star = [], []
    for _ in range(20):
        z = jnp.asarray(fit.z + rng.normal(0, 0.02, len(fit.z)), jnp.float32)
        pixels.append(float(fit.density.log_density(z, fit.likelihood)))
        star.append(float(fit.density.log_density(z, fit.compressed)))
    pixels, star = np.array(pixels), np.array(star)
    best = pixels.argmax()
    drop = pixels[best] - pixels
    assert drop.max() > 5
    # Where the density is far below its maximum the terms of second order begin to show.
    assert (np.abs((star[best] - star) - drop) < 0.02 + 0.01 * drop).all()
