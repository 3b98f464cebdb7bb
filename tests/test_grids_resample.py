"""Spectra of different samplings brought to common wavelengths, as `import_grid` does it."""

import numpy as np
import pytest
from grid_files import COLUMNS, FE_H, LOGG, TEFF, N, flux_at, own_wavelengths, write_folder

from emuinfer.errors import GridError
from emuinfer.grids import import_grid
from emuinfer.grids.resample import resample, spline_error


def test_different_samplings_come_to_the_finest(tmp_path):
    grid = import_grid(write_folder(tmp_path / "spectra", wavelengths=own_wavelengths()), "air")
    assert np.diff(grid.wavelength) == pytest.approx(0.04, abs=1e-5) and grid.wavelength[0] == pytest.approx(
        4999.9, abs=0.05
    )
    assert np.abs(grid.flux - flux_at(grid.wavelength)).max() < 2e-4
    assert grid.provenance["interpolation_error"] < 1e-4
    assert sum(grid.provenance["resampled"].values()) == N and grid.provenance["resampled"]["averaged"] == 0


def test_resolution_is_not_lost_unasked(tmp_path):
    folder = write_folder(tmp_path / "spectra", wavelengths=own_wavelengths())
    with pytest.raises(GridError, match="s0.txt has pixels of 0.04 .* pixels of 0.2: resolution would be lost"):
        import_grid(folder, "air", step=0.2)
    grid = import_grid(folder, "air", step=0.2, lose_resolution=True, wavelength_range=(5001, 5010))
    assert grid.wavelength == pytest.approx(np.arange(5001, 5010.01, 0.2))
    # the mean over each pixel, so that equivalent widths are kept
    width = (1 - grid.flux[:, 1:-1]).sum(axis=1) * 0.2
    depth = 1 - flux_at(np.array([5005.0]))[:, 0]
    assert width == pytest.approx(3 * depth * 0.12 * np.sqrt(2 * np.pi), rel=1e-3)


@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.5])
def test_the_error_of_interpolation_is_told(sigma):
    """Widths in pixels; the estimate must not be below half the true error."""
    line = lambda x: 1 - 0.8 * np.exp(-0.5 * ((x - 5030.3) / sigma) ** 2)
    wavelength = np.arange(5000.0, 5061)
    between = wavelength[:-1] + 0.5
    true = np.sqrt(np.mean((resample(wavelength, line(wavelength), between)[0] - line(between)) ** 2))
    assert 0.5 < spline_error(wavelength, line(wavelength)) / true < 3


def test_averages_over_pixels_are_exact_for_a_cubic():
    wavelength = np.sort(5000 + np.random.default_rng(0).uniform(0, 10, 300))
    wavelength[[0, -1]] = 4999.5, 5010.5
    cubic = np.polynomial.Polynomial([1, 0.02, -0.01, 0.003])
    common = np.arange(5001, 5009.1, 0.5)
    got, how = resample(wavelength, cubic(wavelength - 5005), common, lose_resolution=True)
    integral = cubic.integ()
    expected = (integral(common - 5005 + 0.25) - integral(common - 5005 - 0.25)) / 0.5
    assert how == "averaged" and got == pytest.approx(expected, abs=1e-9)


def test_spectra_that_cover_less(tmp_path):
    wavelengths = own_wavelengths()
    wavelengths[5] = wavelengths[5][wavelengths[5] > 5004]
    folder = write_folder(tmp_path / "spectra", wavelengths=wavelengths)
    with pytest.raises(GridError, match=r"s5.txt covers 5004.\d+ to 5012.\d+ Angstrom, but most spectra .*--range"):
        import_grid(folder, "air")
    with pytest.raises(GridError, match="s5.txt covers .* less than the range 5001 to 5010"):
        import_grid(folder, "air", wavelength_range=(5001, 5010))
    grid = import_grid(folder, "air", wavelength_range=(5005, 5010))
    assert grid.wavelength[[0, -1]] == pytest.approx([5005, 5010], abs=0.05)


def test_npz_with_wavelengths_per_spectrum(tmp_path):
    wavelengths = np.stack([np.linspace(4999.9 - 0.01 * i, 5012.1, 300) for i in range(N)])
    flux = np.stack([flux_at(w)[i] for i, w in enumerate(wavelengths)])
    labels = np.stack([TEFF, LOGG, FE_H], axis=1)
    np.savez(tmp_path / "a.npz", wavelength=wavelengths, flux=flux, labels=labels, label_names=list(COLUMNS))
    grid = import_grid(tmp_path / "a.npz", "vacuum")
    assert np.abs(grid.flux - flux_at(grid.wavelength)).max() < 2e-4
