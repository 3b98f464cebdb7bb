"""Figures: that they are written, hold what they should, and leave the user's matplotlib alone."""

import numpy as np
import pytest

from emuinfer.errors import EmuinferError
from emuinfer.plotting import label_text, plot_corner, plot_fit


@pytest.fixture
def spectrum():
    rng = np.random.default_rng(0)
    x = np.arange(5100, 5200, 0.1)
    model = 1 - 0.8 / (1 + ((x - 5172.7) / 0.4) ** 2)
    sigma = np.full(len(x), 0.01)
    good = np.ones(len(x), bool)
    good[300:340] = False
    flux = model + sigma * rng.normal(size=len(x))
    flux[310] = np.nan
    return x, flux, sigma, model, good


def test_fit_figure(spectrum, tmp_path):
    import matplotlib

    backend = matplotlib.get_backend()
    x, flux, sigma, model, good = spectrum
    figure = plot_fit(
        tmp_path / "fit.png",
        x,
        flux,
        sigma,
        model,
        good,
        model_band=(model - 0.01, model + 0.01),
        model_error=0.02 * (1 - model),
        title="star",
    )
    assert [p.name for p in tmp_path.iterdir()] == ["fit.png"]
    assert (tmp_path / "fit.png").read_bytes()[:4] == b"\x89PNG"
    assert figure.get_size_inches()[0] * figure.dpi == 1600
    assert len(figure.axes) == 2 * 3  # two rows of 50 angstroms, three panels each
    sigmas = figure.axes[2].lines[0].get_ydata()
    np.testing.assert_allclose(sigmas[:300], ((flux - model) / sigma)[:300])
    assert np.isnan(sigmas[300:340]).all()
    assert matplotlib.get_backend() == backend
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


def test_fit_figure_of_a_wholly_masked_spectrum_and_of_bad_shapes(spectrum, tmp_path):
    x, flux, sigma, model, good = spectrum
    plot_fit(None, x, flux, sigma, model, np.zeros_like(good))
    with pytest.raises(EmuinferError, match="one length"):
        plot_fit(None, x[1:], flux, sigma, model, good)
    with pytest.raises(EmuinferError, match="no folder"):
        plot_fit(tmp_path / "absent" / "fit.png", x, flux, sigma, model, good)


def test_corner_regions_hold_their_share(tmp_path):
    rng = np.random.default_rng(1)
    samples = {"teff": 5700 + 30 * rng.normal(size=(4, 2000)), "fe_h": 0.1 * rng.normal(size=(4, 2000))}
    figure = plot_corner(tmp_path / "corner.png", samples, truths={"teff": (5713, 20), "fe_h": 0.0})
    assert (tmp_path / "corner.png").stat().st_size > 5000 and len(figure.axes) == 3
    pair = figure.axes[1]
    assert pair.get_xlabel() == r"$T_\mathrm{eff}$ [K]" and pair.get_ylabel() == "[Fe/H]"
    # The 68 and 95 % regions of a 2-D Gaussian are ellipses at 1.51 and 2.45 standard deviations.
    outer, inner = (path.get_extents() for path in pair.collections[-1].get_paths())
    assert outer.width == pytest.approx(2 * 2.45 * 30, rel=0.15)
    assert inner.width == pytest.approx(2 * 1.51 * 30, rel=0.15)
    assert outer.height == pytest.approx(2 * 2.45 * 0.1, rel=0.15)


def test_notebook_shows_a_figure_without_pyplot():
    """As IPython does before pyplot has registered figures with it."""
    formatters = pytest.importorskip("IPython.core.formatters")
    draws = np.random.default_rng(0).normal(size=(200, 2))
    figure = plot_corner(None, {"teff": draws[:, 0], "fe_h": draws[:, 1]})
    assert formatters.PNGFormatter()(figure).startswith(b"\x89PNG")


def test_corner_refuses_what_it_cannot_draw():
    with pytest.raises(EmuinferError, match="equally many"):
        plot_corner(None, {"a": np.arange(3.0), "b": np.arange(4.0)})
    with pytest.raises(EmuinferError, match="vary.*'b'"):
        plot_corner(None, {"a": np.arange(4.0), "b": np.ones(4)})


@pytest.mark.parametrize(
    "name, text",
    [
        ("fe_h", "[Fe/H]"),
        ("mg_fe", "[Mg/Fe]"),
        ("y_fe", "[Y/Fe]"),
        ("alpha_fe", r"[$\alpha$/Fe]"),
        ("logg", r"$\log g$"),
        ("log10_jitter", r"$\log_{10}$ jitter [of continuum]"),
        ("log10_jitter_1", r"$\log_{10}$ jitter, arm 1 [of continuum]"),
        ("rv_offset_2", r"$\Delta v_\mathrm{rad}$, arm 2 [km/s]"),
        ("vsini", r"$v\,\sin i$ [km/s]"),
        ("continuum_slope", "continuum slope"),
        ("x", "x"),
    ],
)
def test_label_text(name, text):
    assert label_text(name) == text


def test_every_sampled_parameter_has_a_text(tiny_emulator, tiny_observation):
    """No parameter of a model of one or two arms is written with underscores or as a plain word."""
    from emuinfer.likelihoods.joint import JointModel

    options = {"progress": False, "rv_range": (-60, 60), "broadening": "both"}
    joint = JointModel.of(tiny_emulator, [tiny_observation, tiny_observation], **options)
    names = {n for arm in joint.arms for n in arm.names} | set(joint.names)
    assert {"log10_jitter", "log10_jitter_2", "rv_offset_2", "vsini"} < names
    assert [n for n in names if label_text(n) == n.replace("_", " ")] == []
