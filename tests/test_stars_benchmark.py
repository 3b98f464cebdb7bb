"""What judges the network of stars, judged itself: on answers whose scores are known."""

import statistics
import types

import numpy as np
import pytest

from tests.benchmarks import stars_xp_kit as kit_module
from tests.benchmarks import stars_xp_questions as questions

SIZES = [39, 19, 59, 58, 8, 15, 16, 15, 37, 24]


class Exact:
    """A network whose answers are a known truth plus errors of a known size."""

    def __init__(self, truth, sd, claimed):
        self.truth, self.sd, self.claimed = truth, sd, claimed

    def ask(self, tokens, want, levels):
        mean = self.truth + self.sd * np.random.default_rng(1).standard_normal(len(self.truth))
        normal = statistics.NormalDist()
        quantiles = {p: (mean + self.claimed * normal.inv_cdf(p))[:, None] for p in levels}
        return types.SimpleNamespace(mean=mean[:, None], quantiles=quantiles)


def made_up_kit(n=6000):
    random = np.random.default_rng(3)
    label = {k: random.standard_normal(n) for k in kit_module.LABELS}
    return types.SimpleNamespace(label=label, snr=random.uniform(10, 200, n), chosen=None, rows=lambda *a: np.arange(n))


class NoErrors:
    errors = np.full((6000, 5), np.nan)
    vocabulary = types.SimpleNamespace(index=kit_module.LABELS.index)

    def __getitem__(self, rows):
        return self

    def only(self, kinds):
        return self


@pytest.mark.parametrize("claimed, expected", [(0.3, (0.68, 0.95)), (0.15, (0.381, 0.673))])
def test_coverage_of_gaussian_answers_is_what_their_widths_say(claimed, expected, monkeypatch):
    kit = made_up_kit()
    monkeypatch.setattr(questions, "LABELS", ("logg",))
    entries = questions.coverage(Exact(kit.label["logg"], 0.3, claimed), NoErrors(), kit, 1)["logg"]
    assert [e["n"] for e in entries] == [2000, 2000, 2000, 6000]
    # half the width: 2 Φ(0.497) - 1 = 38.1 % where 68 % were said, 2 Φ(0.98) - 1 = 67.3 % for 95 %
    assert entries[3]["coverage_68"] == pytest.approx(expected[0], abs=0.02)
    assert entries[3]["coverage_95"] == pytest.approx(expected[1], abs=0.02)


def test_a_difference_is_in_units_of_its_scatter_over_stars():
    random = np.random.default_rng(0)
    theirs = random.standard_normal(3266)
    same = 0.5 * theirs + np.sqrt(0.75) * random.standard_normal(3266)
    assert abs(questions.compared(same, theirs)["in_sigma"]) < 4
    better = questions.compared(0.9 * same, theirs)
    assert better["in_sigma"] < -3
    assert better["difference"] == pytest.approx(-0.1, abs=0.05)
    # the robust sd of n Gaussian numbers scatters by 1.166/sqrt(n); of the difference of two at most sqrt(2) more
    assert 0.5 < better["sigma"] / (1.166 / np.sqrt(3266)) < 1.5


def test_an_extinction_curve_that_is_in_the_spectra_is_found():
    wave = np.linspace(400, 970, 58)
    true = 10 * (wave / 450) ** -1.3
    low = np.random.default_rng(1).normal(size=(300, 58))
    high = low - 0.4 * np.log(10) * 0.4 * true + 0.7  # 0.4 mag more A_K, and another normalisation
    score, curve = kit_module.extinction_curve(low, high, true)
    assert score["rms_over_span"] < 1e-12
    assert score["slope"] == pytest.approx(1)
    np.testing.assert_allclose(curve, true)


def test_subsets_and_splits_never_change(shared_data):
    columns = kit_module.subsets()
    assert [len(c) for c in columns] == SIZES
    assert all(len(np.unique(c)) == len(c) and c.max() < 93 for c in columns)
    kit = kit_module.Kit(shared_data / "foundation" / "stars_xp_apogee.npz")
    assert [len(kit.rows(s, kit.chosen)) for s in (0, 1, 2)] == [25_985, 3_265, 3_266]
    assert len(kit.rows(2, kit.generated)) == 3_123
    assert len(kit.rows(2, kit.painted)) == 3_604
