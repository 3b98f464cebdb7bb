"""Forecasts: what exposures with given instruments can tell about a star.

A `Forecast` holds the derivatives of the flux at every pixel of every exposure; bounds, information spectra and bounds at
any other S/N follow from them without new derivatives.
"""

import jax.numpy as jnp
import numpy as np

from ..deprecation import renamed_arguments
from ..entry import public
from ..errors import EmuinferError
from ..likelihoods.stellar import emulator_errors
from ..wavelengths.doppler import rest_wavelength
from .bounds import Bounds
from .derivatives import grid_derivatives
from .emulator_floor import emulator_covariance as covariance_of_shifts
from .exposure import Exposure
from .fisher import covariance_of, information
from .parameters import UNITS, Parameters
from .spectrum import grid_flux, make_spectrum, reach_kms


class Forecast:
    """The derivatives of a star's spectrum at the pixels of all its exposures.

    **Arguments:**

    - `emulator`: any `Emulator`; `reduce_emulator(emulator)` is faster where the emulator is a large transformer.
    - `labels`: of the star, as a mapping or array `(n_labels,)`, and its nuisances if known; or the table, the
      posterior or the path of a fit's result (`read_star`). Labels that are left out have the value that `priors` fix, or the Sun's.
    - `exposures`: one `Exposure` or several. They share labels, velocity and broadening; each arm has its own continuum.
    - `priors`: name of a label, `rv`, `vbroad` or `vsini` to a NumPyro distribution, whose curvature is added, or to a
      number, which is then known. By default all are free and have no prior.
    - `prior_sd`: the same to the standard deviation of a Gaussian prior, which is all that a bound needs of it.
    - `rv`, `vbroad`, `vsini`: of the star, km/s; by default what `labels` says, or else 0, 3 and 3.
    - `broadening`: which of the latter two are free: `"vbroad"`, `"vsini"`, `"both"` or `"none"`; by default those
      that `labels` has, or else vbroad.

    **Attributes:** `shared`: names of the free labels, velocity and broadening; `values`: all values by name; `spectra`: a
    `Spectrum` per arm; `prior`: information of the priors `(n_shared,)`; `notes`: what was left out or assumed; `grid`
    `(n_grid,)`: Å, rest frame; `grid_flux` `(n_grid,)` and `grid_rows` `(n_labels, n_grid)`: flux and its derivatives by the
    scaled labels there.

    **Raises:** `LabelError` on labels outside the domain, `EmuinferError` on bad arguments and where nothing is covered.
    """

    @public
    def __init__(
        self,
        emulator,
        labels,
        exposures,
        *,
        priors=None,
        prior_sd=None,
        rv=None,
        vbroad=None,
        vsini=None,
        broadening=None,
    ):
        self.emulator, self.space = emulator, emulator.label_space
        self.exposures = (exposures,) if isinstance(exposures, Exposure) else tuple(exposures)
        if not self.exposures or not all(isinstance(e, Exposure) for e in self.exposures):
            raise EmuinferError("A forecast needs one Exposure(instrument, snr) or more.")
        given = {"rv": rv, "vbroad": vbroad, "vsini": vsini}
        known = Parameters.of(labels, self.space, given, broadening, priors or {}, prior_sd or {})
        self.parameters, self.values, self.kernels = known, known.values, known.kernels
        self.shared, self.prior = known.shared, known.prior
        arms, notes = [], list(known.notes)
        for exposure in self.exposures:
            part, said = exposure.instrument.within(emulator, self.values["rv"])
            arms += [(exposure, part.name, arm) for arm in part.arms]
            notes += said
        self.notes = tuple(dict.fromkeys(notes))
        reach = [reach_kms(arm.resolution, self.values) for _, _, arm in arms]
        at_rest = lambda edge, kms: float(rest_wavelength(edge, self.values["rv"] + kms, emulator.medium))
        lo = min(at_rest(a.lo, 2 * r) for (_, _, a), r in zip(arms, reach))
        hi = max(at_rest(a.hi, -2 * r) for (_, _, a), r in zip(arms, reach))
        self.grid, self._flux_of = grid_flux(emulator, lo, hi)
        scaled = self.space.scale(np.array([self.values[n] for n in self.space.names]))
        self.grid_flux, self.grid_rows = grid_derivatives(self._flux_of, jnp.asarray(scaled, jnp.float32))
        made = (make_spectrum(self, e, name, arm, r) for (e, name, arm), r in zip(arms, reach))
        self.spectra = tuple(s for s in made if s is not None)
        if not self.spectra:
            raise EmuinferError("No pixel is left after masks and the ends of the emulator's range. Widen the range.")

    def describe(self) -> dict:
        """What was asked, in plain values, for tables: star, exposures, and wavelengths that count."""
        known, seen = self.parameters, [s.wavelength for s in self.spectra]
        described = [e.describe() for e in self.exposures]
        return {
            "labels": {n: self.values[n] for n in self.space.names},
            **(described[0] if len(described) == 1 else {"spectra": described}),
            "wavelength_range": [float(min(w[0] for w in seen)), float(max(w[-1] for w in seen))],
            "medium": self.emulator.medium,
            "pixels": self.n_pix,
            "broadening": known.broadening,
            "fixed": dict(known.fixed),
            "priors": dict(known.prior_sd),
        }

    def device_values(self) -> dict:
        """All values by name, in float32."""
        return {n: jnp.float32(v) for n, v in self.values.items()}

    # What follows from the derivatives

    @property
    def n_pix(self) -> int:
        return sum(len(s.wavelength) for s in self.spectra)

    @property
    def names(self) -> tuple[str, ...]:
        """Free parameters in the order of `fisher`."""
        several = len(self.spectra) > 1
        terms = [
            f"continuum[{i}:{k}]" if several else f"continuum[{k}]"
            for i, s in enumerate(self.spectra)
            for k in range(len(s.terms))
        ]
        return (*self.shared, *terms)

    @public
    def fisher(self, snr_factor: float = 1.0) -> np.ndarray:
        """Information of data and priors, `(n, n)`, with every S/N multiplied by `snr_factor`."""
        return information([(*s.whitened(snr_factor), s.terms_sd) for s in self.spectra], self.prior)

    @renamed_arguments(uncertainty="emulator_error")
    @public
    def bounds(self, snr_factor: float = 1.0, *, emulator_error="shipped") -> Bounds:
        """Cramér–Rao bounds, with every S/N multiplied by `snr_factor`.

        `emulator_error`: an `EmulatorUncertainty`, `"shipped"` for that of a shipped emulator, or None; with it the result
        has the `floor` that the emulator's own error puts under the bound.
        """
        fisher = self.fisher(snr_factor)
        covariance = covariance_of(fisher, self.names, self.space)
        emulator_covariance, notes = None, self.notes
        if emulator_error is not None:
            found, _ = emulator_errors(emulator_error, self.emulator)
            if found is not None:
                emulator_covariance = covariance_of_shifts(self, found, covariance, snr_factor)
            elif emulator_error is not False:
                notes = (*notes, "The error of this emulator is not known: the bounds hold for a perfect emulator.")
        units = dict(zip(self.space.names, self.space.units)) | UNITS
        values = self.values | {n: float(n.endswith(("[0]", ":0]"))) for n in self.names if n not in self.values}
        units = {n: units.get(n, "") for n in self.names}
        return Bounds(self.names, values, fisher, covariance, units, emulator_covariance, notes)

    @public
    def information(self, name: str, *, marginal: bool = True) -> list[np.ndarray]:
        """How much each pixel tells about one parameter: one array `(n_pix,)` per spectrum, in 1/unit².

        `marginal`: of the part of its derivative that no combination of the other parameters, continuum included, can
        imitate; the sum over all pixels is then 1/marginal² (less the priors' share). Else of the derivative itself, whose
        sum is 1/conditional². With correlated noise a pixel is credited with what it adds to those before it.
        """
        if name not in self.shared:
            raise EmuinferError(f"'{name}' is not a free parameter; there are {', '.join(self.shared)}.")
        i = self.shared.index(name)
        weights = np.eye(len(self.names))[i]
        if marginal:
            covariance = covariance_of(self.fisher(), self.names, self.space)
            weights = covariance[i] / covariance[i, i]
        out, start, n = [], len(self.shared), len(self.shared)
        for s in self.spectra:
            shared, terms = s.whitened()
            out.append((weights[:n] @ shared + weights[start : start + len(terms)] @ terms) ** 2)
            start += len(terms)
        return out
