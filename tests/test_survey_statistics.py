"""Statistics of many posteriors at once against ArviZ, one by one."""

import arviz
import numpy as np
import pytest

from emuinfer.inference import SURVEY
from emuinfer.posteriors.convergence import effective_size, r_hat
from emuinfer.survey import flag_names, share


@pytest.mark.comparison
@pytest.mark.parametrize("coefficient", [-0.4, 0.0, 0.6, 0.95])
def test_r_hat_and_ess_are_those_of_arviz(coefficient):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((5, 4, 300))
    for i in range(1, 300):
        x[..., i] = coefficient * x[..., i - 1] + np.sqrt(1 - coefficient**2) * x[..., i]
    x[3, 0] += 1.0  # a chain that has not mixed
    x[4] = np.exp(x[4])
    assert effective_size(x) == pytest.approx([float(arviz.ess(one)) for one in x], rel=0.04)
    assert r_hat(x) == pytest.approx([float(arviz.rhat(one)) for one in x], rel=2e-3)


def test_constant_draws_have_no_statistics():
    x = np.ones((2, 4, 50))
    x[1, 2, 3] = np.nan
    assert np.isnan(r_hat(x)).all() and np.isnan(effective_size(x)).all()


def test_flags_have_names():
    assert flag_names(5) == ["bad_data", "r_hat"] and flag_names(0) == []


def test_every_worker_has_a_batch(tmp_path):
    """64 stars are one batch for one worker and two for two; a run that goes on keeps the batches that it has."""
    assert share.default_batch(SURVEY, 64) == 64 and share.default_batch(SURVEY, 64, workers=2) == 32
    assert share.default_batch(SURVEY, 10_000, workers=2) == 64 and share.default_batch(SURVEY, 1, workers=4) == 1
    assert share.known_batch(tmp_path) is None
    (tmp_path / "plan.json").write_text('{"batch": 48}')
    assert share.known_batch(tmp_path) == 48
    (tmp_path / "plan.json").write_text("{")
    assert share.known_batch(tmp_path) is None
