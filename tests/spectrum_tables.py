"""Tables of a made-up spectrum for the tests of readers: written by astropy, read by `Observation.read`, compared."""

import numpy as np
from astropy.io import fits

from emuinfer.observations import Observation

N = 400
WAVE = np.linspace(5110.0, 5150.0, N)
FLUX = 1 - 0.4 * np.exp(-0.5 * ((WAVE - 5130) / 0.3) ** 2)
SIGMA = np.linspace(0.01, 0.02, N)
BAD = np.zeros(N, bool)
BAD[40:50] = True


def hdu(name="SPECTRUM", header=(), **columns):
    """A binary table; a column is an array, or (array, unit), or an astropy Column."""
    made = []
    for key, value in columns.items():
        if not isinstance(value, fits.Column):
            values, unit = value if isinstance(value, tuple) else (value, None)
            form = {"i": "J", "f": "D", "b": "L", "u": "B"}[values.dtype.kind]
            size = values.shape[1] if values.ndim == 2 else ""
            value = fits.Column(key, f"{size}{form}", unit=unit, array=values)
        made.append(value)
    table = fits.BinTableHDU.from_columns(made, name=name)
    table.header.update(dict(header))
    return table


def read(path, *hdus, primary=(), **options):
    first = fits.PrimaryHDU()
    first.header.update(dict(primary))
    fits.HDUList([first, *hdus]).writeto(path / "a.fits", overwrite=True)
    return Observation.read(path / "a.fits", **{"medium": "air", **options})


def same(obs, sigma=SIGMA, rtol=1e-6):
    np.testing.assert_allclose(obs.wavelength, WAVE, rtol=1e-9)
    np.testing.assert_allclose(obs.flux[obs.good], FLUX[obs.good], rtol=rtol)
    np.testing.assert_allclose(obs.uncertainty[obs.good], sigma[obs.good], rtol=rtol)
    return obs
