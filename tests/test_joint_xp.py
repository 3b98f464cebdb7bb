"""A high-resolution spectrum, spectrophotometry and a parallax of one star in one posterior."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from tiny import RV, VBROAD
from tiny import TRUTH as LINES
from tiny_xp import TRUTH as TOKENS
from tiny_xp import BlackBody, observe

import emuinfer as ei
from emuinfer import LabelSpace, StellarModel
from emuinfer.errors import LabelError, ObservationError
from emuinfer.likelihoods.common_labels import common_space, label_value
from emuinfer.posteriors import draws_of

TRUTH = {**TOKENS, **LINES}
STAR = {n: TRUTH[n] for n in ("teff", "logg", "fe_h", "mg_fe", "a_k")}
PARALLAX, MAGNITUDE = (3.0, 0.3), (12.23, 0.003)  # of the star: M_G = 4.23, A_G = 0.39
value = eqx.filter_jit(lambda likelihood, values: likelihood.log_likelihood(values))


@pytest.fixture(scope="module")
def stellar(tiny_emulator, tiny_observation):
    return StellarModel(tiny_emulator, tiny_observation, progress=False, rv_range=(-60, 60), line_errors=None)


@pytest.fixture(scope="module")
def xp():
    data = {**observe(BlackBody(), truth=TRUTH), "phot_g_mean_mag": MAGNITUDE}
    return ei.XPModel(BlackBody(), data, parallax=PARALLAX, priors={"a_k": dist.Normal(0.05, 0.02)})


@pytest.fixture(scope="module")
def joint(stellar, xp):
    return ei.JointModel([stellar, xp])


def test_labels_are_common(joint, stellar, xp):
    """`teff` and `fe_h` are in both, `alpha_m` is mg_fe, the only α element of the lines; log g comes from the second."""
    assert joint.names == ("teff", "fe_h", "mg_fe", "logg", "rv", "vbroad", "log10_jitter_1", "a_k")
    assert joint.units["a_k"] == "mag" and joint.units["logg"] == "dex(cm s-2)" and joint.units["rv"] == "km / s"
    bounds = joint.label_space.bounds
    assert bounds["teff"] == (4500, 6500) and bounds["fe_h"] == (-1.5, 0.5) and bounds["logg"] == (1, 5)
    assert joint.label_space.contains({**{n: TRUTH[n] for n in bounds}, "mg_fe": 0.45})
    assert not joint.label_space.contains({**{n: TRUTH[n] for n in bounds}, "mg_fe": 0.55})
    assert joint.first_guesses("a_k") == xp.first_guesses("a_k") and joint.first_guesses("rv") == (stellar.rv_guess,)
    other = ei.JointModel([stellar, xp], priors={"logg": 4.0, "a_k": 0.1})
    assert set(joint.names) - set(other.names) == {"logg", "a_k"}


def test_spaces_in_common():
    lines = LabelSpace(
        ("teff", "mg_fe", "ca_fe"), (4000, -0.2, -0.2), (7000, 0.6, 0.6), constraints=(({"teff": 1.0}, 6900.0),)
    )
    tokens = LabelSpace(("teff", "logg", "alpha_m"), (5000, 0, -0.1), (8000, 5, 0.4))
    both = common_space(lines, tokens)
    assert both.names == ("teff", "mg_fe", "ca_fe", "logg") and both.bounds["teff"] == (5000, 7000)
    inside = lambda **changes: bool(both.contains({"teff": 6000, "mg_fe": 0.3, "ca_fe": 0.3, "logg": 4, **changes}))
    assert inside() and not inside(teff=6950) and not inside(mg_fe=0.55) and not inside(mg_fe=-0.2, ca_fe=-0.1)
    assert label_value("alpha_m", {"mg_fe": 0.4, "ca_fe": 0.2, "ni_fe": 9.0}) == pytest.approx(0.3)
    with pytest.raises(LabelError, match="share no value of teff"):
        common_space(LabelSpace(("teff",), (3000,), (4000,)), tokens)


def test_the_likelihood_is_the_sum(joint, stellar, xp):
    values = {n: jnp.float32({**TRUTH, "rv": RV, "vbroad": VBROAD, "log10_jitter_1": -3.0}[n]) for n in joint.names}
    spectrum = float(value(stellar.likelihood, {**values, "log10_jitter": values["log10_jitter_1"]}))
    tokens, parallax = xp.likelihood.others
    rest = float(value(tokens.beside_spectra(), {**values, "alpha_m": values["mg_fe"]})) + float(
        value(parallax, values)
    )
    assert float(value(joint.likelihood, values)) == pytest.approx(spectrum + rest, abs=0.02)


def test_bounds_add(joint, stellar, xp):
    """The information of all together is the sum of those of the parts, in the labels that they share."""
    lines = {n: TRUTH[n] for n in ("teff", "fe_h", "mg_fe")}
    one, all_of_it = (
        ei.cramer_rao(stellar, lines, rv=RV, vbroad=VBROAD),
        ei.cramer_rao(joint, STAR, rv=RV, vbroad=VBROAD),
    )
    shared = ("teff", "fe_h", "mg_fe")
    i, j = ([b.names.index(n) for n in shared] for b in (one, all_of_it))
    more = all_of_it.fisher[np.ix_(j, j)] - one.fisher[np.ix_(i, i)]
    assert np.linalg.eigvalsh(more / np.sqrt(np.outer(*[np.diag(more)] * 2))).min() > -1e-3
    assert all(all_of_it.marginal[n] < one.marginal[n] for n in shared)
    assert all_of_it.marginal["logg"] < 0.15 and "a_k" in all_of_it.names


@pytest.mark.slow
def test_posterior(joint):
    """One fit: truth within its errors, verified against the emulators themselves, with data simulated for all three."""
    posterior = ei.sample(
        joint, seed=3, progress=False, chains=2, warmup=200, draws=250, verify=40, predictive=20, pointwise=20
    )
    assert posterior.attrs["verification"] == "ok"
    bounds = ei.cramer_rao(joint, STAR, rv=RV, vbroad=VBROAD)
    for name in ("teff", "fe_h", "mg_fe", "logg", "a_k"):
        draws = draws_of(posterior, name)
        assert abs(draws.mean() - TRUTH[name]) < 4 * draws.std()
        assert draws.std() == pytest.approx(bounds.marginal[name], rel=0.4)
    predicted = posterior["posterior_predictive"]
    assert predicted["xp"].shape[-1] == 13 and predicted["parallax"].shape[-1] == 1 and "flux" in predicted
    assert list(posterior["observed_data"]["xp"]["xp_kind"].values)[-1] == "j_h"
    spread = predicted["parallax"].values.std()
    assert 0.25 < spread < 0.7
    assert posterior.attrs["goodness"] == "good" and "chi2_xp" in posterior.attrs["goodness_statistics"]


def test_models_that_do_not_go_together(stellar, xp):
    with pytest.raises(ObservationError, match="got none"):
        ei.JointModel([])
    with pytest.raises(ObservationError, match="got dict"):
        ei.JointModel([stellar, {}])
    with pytest.raises(LabelError, match="no parameter rv_offset_2"):
        ei.JointModel([stellar, xp], priors={"rv_offset_2": 0.0})
