"""The log density of the flat vector against NumPyro's own of the same model."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import tiny
from numpyro.distributions import biject_to
from numpyro.infer.util import initialize_model

from emuinfer.errors import LabelError
from emuinfer.likelihoods import JointModel, StellarModel
from emuinfer.likelihoods.density import Unconstrained

PRIORS = {
    "default": {},
    "gaussian and fixed": {"teff": dist.Normal(5700.0, 80.0), "mg_fe": 0.1},
    "others": {
        "teff": dist.TruncatedNormal(5500.0, 200.0, low=4600.0, high=6400.0),
        "fe_h": dist.StudentT(5, 0.0, 0.3),
        "vbroad": dist.LogNormal(1.0, 0.5),
        "mg_fe": dist.Normal(0.1, 0.2),
    },
}


class WithParallax(StellarModel):
    def __call__(self, data=None):
        values = super().__call__(data)
        numpyro.factor("parallax", dist.Normal(5600.0, 100.0).log_prob(values["teff"] + 300 * values["fe_h"]))
        return values


class WithDistance(StellarModel):
    def __call__(self, data=None):
        numpyro.sample("distance", dist.Normal(100.0, 1.0))
        return super().__call__(data)


def compare(model):
    """The two densities at random positions differ by the Jacobian of the linear part, a constant."""
    density = Unconstrained(model)
    potential = initialize_model(
        jax.random.key(0), model, model_args=(model.likelihood,), dynamic_args=True, validate_grad=False
    ).potential_fn(model.likelihood)
    priors = {**model.priors, **model.nuisance_priors}
    constant = sum(np.log(g.unit).sum() for g in density._groups)
    constant -= sum(float(part.constant) for part in model.likelihood.arms)
    for z in np.random.default_rng(0).normal(size=(4, density.dim)).astype(np.float32):
        values = density.constrain(jnp.asarray(z))
        theirs = -potential({n: biject_to(priors[n].support).inv(v) for n, v in values.items()})
        assert float(density.log_density(jnp.asarray(z), model.likelihood)) == pytest.approx(
            float(theirs) + constant, rel=1e-5, abs=0.02
        )
        back = density.unconstrain({n: np.array([v]) for n, v in values.items()})
        np.testing.assert_allclose(back[0], z, atol=2e-5)


@pytest.mark.comparison
@pytest.mark.parametrize("priors", PRIORS.values(), ids=PRIORS)
def test_is_numpyros(tiny_emulator, tiny_observation, priors):
    compare(StellarModel(tiny_emulator, tiny_observation, rv_range=(-50, 50), priors=priors, progress=False))


def test_numbers_of_priors_are_arguments_of_a_program(tiny_emulator, tiny_observation):
    """And what else a density depends on tells programs apart."""
    model = lambda kind=StellarModel, **priors: kind(
        tiny_emulator, tiny_observation, rv_range=(-50, 50), priors=priors, progress=False
    )
    structure = lambda *arguments, **priors: jax.tree.structure(Unconstrained(model(*arguments, **priors)))
    one, other = (
        model(teff=dist.Normal(mean, sd), mg_fe=fixed) for mean, sd, fixed in ((5700, 80, 0.1), (5200, 9, 0.3))
    )
    density = jax.jit(lambda density, z, likelihood: density.log_density(z, likelihood))
    z = jnp.asarray(np.random.default_rng(0).normal(size=5), jnp.float32)
    for each in (one, other):
        found = Unconstrained(each)
        assert float(density(found, z, each.likelihood)) == pytest.approx(
            float(found.log_density(z, each.likelihood)), rel=1e-5, abs=0.02
        )
    assert density._cache_size() == 1
    assert structure() == structure()
    different = [structure(), structure(teff=dist.Normal(5700, 80)), structure(mg_fe=0.1), structure(fe_h=0.1)]
    different += [structure(WithParallax), structure(WithParallax), structure(teff=dist.StudentT(5, 5500.0, 90.0))]
    assert all(a != b for i, a in enumerate(different) for b in different[:i])


def test_several_arms(tiny_emulator, tiny_observation):
    other = tiny.observe(tiny_emulator, seed=2, grid=tiny_emulator.config.wavelength)
    compare(JointModel.of(tiny_emulator, [tiny_observation, other], rv_range=(-50, 50), progress=False))


def test_what_a_subclass_adds_counts(tiny_emulator, tiny_observation):
    compare(WithParallax(tiny_emulator, tiny_observation, rv_range=(-50, 50), progress=False))


def test_what_a_subclass_samples_is_refused(tiny_emulator, tiny_observation):
    with pytest.raises(LabelError, match="samples distance"):
        Unconstrained(WithDistance(tiny_emulator, tiny_observation, rv_range=(-50, 50), progress=False))
