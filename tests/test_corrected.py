"""Emulators with a correction: exact for changes that its terms contain, kept on disk whole, refused where pairs do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import emuinfer as ei
from emuinfer.emulators import TransformerConfig, TransformerPayne, reduce_emulator
from emuinfer.emulators.base import from_link, to_link
from emuinfer.emulators.corrected import fit_correction, terms
from emuinfer.errors import EmulatorError
from emuinfer.labels import LabelSpace
from emuinfer.labels.design import sobol_design

SPACE = LabelSpace(("teff", "logg", "fe_h", "mg_fe"), (4000, 1, -2, -0.2), (7000, 5, 0.5, 0.6))
WAVELENGTH = np.round(5100.0 + 0.02 * np.arange(501), 6)
CONFIG = TransformerConfig(width=16, depth=0, rank=4, label_hidden=8, branch_layers=2)


@pytest.fixture(scope="module")
def base():
    return TransformerPayne(SPACE, (5100.0, 5110.0), "air", CONFIG, key=jax.random.key(0))


@pytest.fixture(scope="module")
def pairs():
    """Labels, spectra of a star and the same with an opacity times a smooth function of labels and wavelength."""
    labels = sobol_design(SPACE, 120, seed=1)
    s = SPACE.scale(labels)
    line = np.exp(-0.5 * ((WAVELENGTH - 5105.0) / 0.3) ** 2)
    x = -1.0 + 2.0 * line * (1 + 0.3 * s[:, 2:3]) - 0.4 * s[:, :1]
    shift = line * (0.3 + 0.2 * s[:, 2:3] - 0.1 * s[:, 1:2] * s[:, 3:4] + 0.05 * s[:, 1:2] ** 3)
    return labels, np.asarray(from_link(x, 0.003)), np.asarray(from_link(x + shift, 0.003)), shift


def test_changes_carry_over_to_another_emulator(base, pairs):
    labels, before, after, shift = pairs
    corrected = fit_correction(base, labels[:100], before[:100], after[:100], WAVELENGTH)
    found, plain = (np.asarray(e(labels[100:], WAVELENGTH), float) for e in (corrected, base))
    want = np.asarray(from_link(to_link(plain, 0.003) + shift[100:], 0.003))
    assert np.abs(want - plain).max() > 0.02
    np.testing.assert_allclose(found, want, atol=1e-3)
    between = np.array([5101.013, 5105.027])  # where the correction is interpolated
    x = to_link(np.asarray(base(labels[100], between), float), 0.003) + np.interp(between, WAVELENGTH, shift[100])
    np.testing.assert_allclose(corrected(labels[100], between), from_link(x, 0.003), atol=1e-3)
    gradient = jax.grad(lambda s: corrected.flux(s, corrected.prepare(WAVELENGTH)).sum())(jnp.zeros(4, jnp.float32))
    assert np.isfinite(gradient).all() and (np.asarray(gradient) != 0).all()


def test_it_is_kept_on_disk_and_reduced_as_any_other(base, pairs, tmp_path):
    labels, before, after, _ = pairs
    corrected = fit_correction(base, labels, before, after, WAVELENGTH, components=8)
    ei.save_emulator(corrected, tmp_path / "made")
    again = ei.load_emulator(tmp_path / "made.json")
    np.testing.assert_array_equal(again(labels[:3], WAVELENGTH), corrected(labels[:3], WAVELENGTH))
    reduced = reduce_emulator(
        again, n_train=60, n_test=8, components=6, hidden=8, steps=30, cache=False, progress=False
    )
    assert np.isfinite(np.asarray(reduced.grid_flux(jnp.zeros(4, jnp.float32)))).all()


def test_terms_are_those_of_degree_two_and_three(base):
    s = np.array([0.0, 0.5, -0.5, 0.25])
    found = terms(SPACE, s, np)
    assert len(found) == 1 + 4 + 10 + 10  # to degree 2, and the ten products of three of Teff, log g and [Fe/H]
    assert np.isclose(found, 0.5 * -0.5 * 0.25).sum() == 0 and np.isclose(found, 0.5 * 0.25).any()


def test_pairs_that_do_not_fit_are_refused(base, pairs):
    labels, before, after, _ = pairs
    with pytest.raises(EmulatorError, match=r"at least 38 pairs.*got 20"):
        fit_correction(base, labels[:20], before[:20], after[:20], WAVELENGTH)
    with pytest.raises(EmulatorError, match="one shape"):
        fit_correction(base, labels, before[:50], after, WAVELENGTH)
    with pytest.raises(EmulatorError, match=r"5100 to 5106 Å"):
        fit_correction(base, labels, before[:, :301], after[:, :301], WAVELENGTH[:301])
