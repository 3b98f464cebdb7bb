"""Grids as other codes leave them in files: what the tests of their import share."""

import numpy as np
from astropy.table import Table

N = 9
WAVELENGTH = np.arange(5000, 5012.01, 0.05)
TEFF, LOGG, FE_H = np.random.default_rng(3).uniform((4500, 1, -1), (6500, 5, 0.3), (N, 3)).T
COLUMNS = {"teff": TEFF, "logg": LOGG, "fe_h": FE_H}


def flux_at(wavelength):
    """Lines of 0.12 Angstrom standard deviation, (N, n_wave)."""
    depth = 0.2 + 0.5 * np.random.default_rng(4).random((N, 1))
    centres = (5002.3, 5005.0, 5009.1)
    return 1 - depth * sum(np.exp(-0.5 * ((wavelength - c) / 0.12) ** 2) for c in centres)


FLUX = flux_at(WAVELENGTH).astype(np.float32)


def assert_same(grid, medium="air"):
    assert grid.medium == medium and set(grid.label_space.names) == set(COLUMNS)
    for name, values in COLUMNS.items():
        np.testing.assert_allclose(grid.labels[:, grid.label_space.index(name)], values, rtol=1e-7)
    np.testing.assert_allclose(grid.wavelength, WAVELENGTH, rtol=1e-12)
    np.testing.assert_array_equal(grid.flux, FLUX)


def write_folder(folder, kind="txt", wavelengths=None):
    folder.mkdir()
    wavelengths = [WAVELENGTH] * N if wavelengths is None else wavelengths
    files = [f"s{i}.{kind}" for i in range(N)]
    for i, (file, wavelength) in enumerate(zip(files, wavelengths)):
        flux = FLUX[i] if wavelength is WAVELENGTH else flux_at(wavelength)[i]
        if kind == "txt":
            np.savetxt(folder / file, np.stack([wavelength, flux], axis=1), fmt=["%.6f", "%.9g"])
        else:
            table = Table({"wavelength": wavelength, "flux": flux})
            table.write(folder / file, format="ascii.ecsv" if kind == "ecsv" else "fits")
    table = Table({"file": files, "Teff": TEFF, "log g": LOGG, "[Fe/H]": FE_H, "comment": ["x"] * N})
    table.write(folder / "labels.csv", format="ascii.csv")
    return folder


def own_wavelengths():
    return [np.arange(4999.9 - 0.01 * i, 5012.2, 0.04 + 0.002 * (i % 3)) for i in range(N)]
