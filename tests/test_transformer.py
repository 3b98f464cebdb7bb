"""TransformerPayne: precise phases without float64, Doppler shifts, gradients, starts from components and from a teacher."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_baselines import SPACE, WAVELENGTH, spectra

from emuinfer.emulators import TransformerConfig, TransformerPayne, load_emulator, save_emulator
from emuinfer.emulators.training import TrainConfig, fit_logit_gp, train
from emuinfer.emulators.training.start import start_from_components, start_from_teacher, teacher_coefficients
from emuinfer.emulators.wavelength_encoding import log_periods, prepare_query
from emuinfer.errors import EmulatorError, TrainingError

RANGE = (float(WAVELENGTH[0]), float(WAVELENGTH[-1]))
SMALL = TransformerConfig(
    width=16,
    depth=1,
    heads=2,
    tokens=4,
    label_hidden=32,
    frequencies=8,
    rank=8,
    table_nodes=len(WAVELENGTH),
    longest_period=0.1,
)


def make(config=SMALL, space=SPACE, seed=0):
    return TransformerPayne(space, RANGE, "air", config, key=jax.random.key(seed))


def test_phases_are_those_of_float64():
    """At the shortest period log10(λ)/P is of the order of a million turns, of which float32 would lose all digits."""
    periods = log_periods(64, 4e-6, 10.0)
    wavelength = np.linspace(5100, 5300, 777)
    query = prepare_query(wavelength, periods, (5100, 5300), 100)
    exact = (
        2 * np.pi * np.longdouble(np.log10(wavelength.astype(np.longdouble)))[:, None] / periods.astype(np.longdouble)
    )
    np.testing.assert_allclose(np.sin(np.asarray(query.phase, float)), np.sin(exact).astype(float), atol=2e-6)


def test_shift_is_that_of_the_wavelengths():
    emulator, v = make(), 37.5 / 299_792.458
    scaled, wavelength = jnp.zeros(3), np.linspace(5101.3, 5104.7, 80)
    shifted = emulator.shift(emulator.prepare(wavelength), jnp.float32(np.log1p(v)))
    direct = emulator.flux(scaled, emulator.prepare(wavelength / (1 + v)))
    np.testing.assert_allclose(emulator.flux(scaled, shifted), direct, atol=2e-4)


def test_each_wavelength_is_alone():
    """The flux at a wavelength does not depend on which others are asked for."""
    emulator = make()
    labels = {"teff": 5300.0, "logg": 3.0, "fe_h": -0.4}
    everything = np.asarray(emulator(labels, WAVELENGTH))
    np.testing.assert_allclose(emulator(labels, WAVELENGTH[40:60:3]), everything[40:60:3], atol=1e-6)
    assert everything.std() > 1e-4


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        dataclasses.replace(SMALL, rank=0, table_nodes=0),
        dataclasses.replace(SMALL, branch_layers=3, branch_theta=True),
    ],
)
def test_gradients_and_round_trip(config, tmp_path):
    emulator = make(config)
    query, s = emulator.prepare(WAVELENGTH[::7]), jnp.array([0.2, -0.3, 0.4])
    slope = jax.jacfwd(lambda s: emulator.flux(s, query))(s)
    step = 4e-3
    for i in range(3):
        e = jnp.eye(3)[i] * step
        difference = (emulator.flux(s + e, query) - emulator.flux(s - e, query)) / (2 * step)
        np.testing.assert_allclose(slope[:, i], difference, atol=0.05 * float(jnp.abs(slope).max()) + 1e-4)
    again = load_emulator(save_emulator(emulator, tmp_path / "small"))
    assert again.config == config
    np.testing.assert_array_equal(again.flux(s, query), emulator.flux(s, query))


def test_bad_configurations():
    with pytest.raises(EmulatorError, match="table_nodes"):
        make(dataclasses.replace(SMALL, table_nodes=0))
    from emuinfer.labels.space import LabelSpace

    with pytest.raises(EmulatorError, match="teff"):
        make(dataclasses.replace(SMALL, branch_theta=True), LabelSpace(("fe_h", "logg"), (-1, 1), (0, 5)))


def test_starts_where_the_components_are_and_goes_on():
    labels, flux = spectra(150)
    held_labels, held_flux = spectra(20, seed=3)
    start = start_from_components(make(), labels, flux, WAVELENGTH, steps=200, progress=False)
    error = lambda e: np.abs(np.asarray(e(held_labels, WAVELENGTH)) - held_flux).mean()
    fresh, started = error(make()), error(start)
    assert started < 0.3 * fresh
    settings = TrainConfig(steps=150, warmup=10, spectra=16, pixels=64, learning_rate=1e-3, validate_every=150)
    trained = train(start, labels, flux, WAVELENGTH, config=settings, progress=False)
    assert error(trained) < 0.8 * started
    with pytest.raises(TrainingError, match="150 wavelengths"):
        start_from_components(make(), labels, flux[:, 1:], WAVELENGTH[1:], progress=False)


def test_follows_its_teacher():
    labels, flux = spectra(60)
    teacher = fit_logit_gp(SPACE, labels, flux, WAVELENGTH, medium="air", components=8, groups=(2,), iterations=8)
    scaled = np.asarray(SPACE.scale(spectra(9, seed=5)[0]), np.float32)
    one_by_one = np.stack([np.asarray(teacher.coefficients(jnp.asarray(s))) for s in scaled])
    np.testing.assert_allclose(teacher_coefficients(teacher, scaled), one_by_one, atol=2e-3 * np.abs(one_by_one).max())
    student = start_from_teacher(
        make(dataclasses.replace(SMALL, branch_theta=True, epsilon=teacher.epsilon)),
        teacher,
        n=2048,
        steps=1500,
        progress=False,
    )
    held = spectra(30, seed=7)[0]
    difference = np.abs(np.asarray(student(held, WAVELENGTH)) - np.asarray(teacher(held, WAVELENGTH)))
    assert difference.mean() < 2e-3
    with pytest.raises(TrainingError, match="rank"):
        start_from_teacher(make(dataclasses.replace(SMALL, rank=9)), teacher, progress=False)


def test_folded_attention_is_attention():
    """The block's folded products equal softmax(Q K^T) V written out head by head."""
    block = make().blocks[0]
    d, h = block.query.shape[0], block.heads
    rng = np.random.default_rng(0)
    x, tokens = jnp.asarray(rng.normal(size=(5, d)), jnp.float32), jnp.asarray(rng.normal(size=(4, d)), jnp.float32)
    normed = x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * block.norm_attention
    split = lambda a: a.reshape(len(a), h, d // h)
    q, k, v = split(normed @ block.query), split(tokens @ block.key), split(tokens @ block.value)
    weights = jax.nn.softmax(jnp.einsum("whe,the->wht", q, k) * (h / d), axis=-1)
    expected = x + jnp.einsum("wht,the->whe", weights, v).reshape(5, d) @ block.out
    np.testing.assert_allclose(block.attend(x, tokens), expected, atol=1e-5)
    assert eqx.is_array(block.query)


def test_attention_is_a_share_and_what_the_block_uses():
    emulator = make(dataclasses.replace(SMALL, rank=0, depth=2))
    wavelength = np.linspace(*emulator.wavelength_range, 30)
    labels = emulator.label_space.centre
    shares = emulator.attention(labels, wavelength)
    assert len(shares) == 2
    np.testing.assert_allclose(shares[0].sum(-1), 1.0, atol=1e-5)
    block, tokens = emulator.blocks[0], emulator.tokens(np.zeros(len(emulator.labels), np.float32))
    x = emulator.wavelength_features(emulator.prepare(wavelength))[0]
    width, heads = emulator.config.width, emulator.config.heads
    values = (np.asarray(tokens) @ np.asarray(block.value)).reshape(-1, heads, width // heads)
    mixed = np.einsum("wht,the->whe", shares[0], values).reshape(len(wavelength), width)
    np.testing.assert_allclose(block.attend(x, tokens) - x, mixed @ np.asarray(block.out), atol=1e-5)


def test_without_blocks_the_bilinear_part_is_all():
    """Silent blocks (a head of zeros) and none give the same spectra."""
    labels, flux = spectra(40)
    config = dataclasses.replace(SMALL, branch_theta=False)
    whole = start_from_components(make(config), labels, flux, WAVELENGTH, steps=20, progress=False)
    bare = make(dataclasses.replace(config, depth=0))
    bare = eqx.tree_at(
        lambda e: (e.trunk_mean, e.trunk, e.branch, e.head_bias),
        bare,
        (whole.trunk_mean, whole.trunk, whole.branch, whole.head_bias),
    )
    np.testing.assert_allclose(bare(labels[:3], WAVELENGTH), whole(labels[:3], WAVELENGTH), atol=1e-6)
    with pytest.raises(EmulatorError, match="depth > 0"):
        make(dataclasses.replace(config, depth=0, rank=0))
