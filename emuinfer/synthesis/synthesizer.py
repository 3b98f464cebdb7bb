"""LTE spectra of late-type stars from labels: atmosphere, line opacity, formal solution. All in JAX, float32."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..constants import LN_10
from ..entry import public
from ..errors import EmuinferError, suggestion
from ..labels.space import LabelSpace
from ..wavelengths.interpolation import lagrange_weights
from . import eos, line_windows, opacity, structure, transfer
from .elements import abundance_matrix
from .elements import solar_composition as solar_composition_of
from .lines import LineList, line_constants, line_opacity
from .setting import setting


class Opacities(NamedTuple):
    """`layers` of the atmosphere; absorption over the reference opacity `total` and `source` function, both `(n_wave, n_depth)`;
    `continuum` flux `(n_wave,)`."""

    layers: dict
    total: Float[Array, "n_wave n_depth"]
    source: Float[Array, "n_wave n_depth"]
    continuum: Float[Array, " n_wave"]


class LTESynthesizer(eqx.Module):
    """Normalised flux and continuum in LTE, in a plane-parallel atmosphere in hydrostatic equilibrium.

    **Arguments:**

    - `labels`: a `LabelSpace`; it must have `teff`, `logg`, `fe_h` and `vmic`, further labels are `x_fe` abundances. By
      default that of the window.
    - `wavelength`: Å in `medium`, rising, inside the range of the line list (float64 on the host); by default the window's.
    - `temperature_structure`: a name in `structure.ANALYTIC`, or `"c3k"`.
    - `line_list`: a `LineList`; by default that of the window. Lines with `reach` 0 are left out.
    - `n_depth`: number of layers.
    - `solar_composition`: `"mixed"` or `"asplund2009"`, see `elements.solar_composition`.
    - `stark`: whether to add approximate Stark widths. The list has none, and Turbospectrum then uses none.
    - `window`: a `Window` of `emuinfer.labels`, or its name; the default one if None. `medium`: "air" or "vacuum", in place
      of the window's.

    Call it with labels of shape `(n_labels,)`; it may be differentiated, and transformed by `jax.vmap` and
    `eqx.filter_jit`. **Returns** the normalised flux and the continuum (erg s^-1 cm^-2 Å^-1 at the stellar surface,
    divided by 1e6), both of shape `(n_wave,)`, float32.
    """

    tables: eos.ElementTables
    constants: dict
    groups: tuple
    centres: Float[Array, " n_lines"]
    offsets: Float[Array, " n_wave"]
    line_wavelength: Float[Array, " n_lines"]
    log_solar: Float[Array, " 92"]
    abundance_of_labels: Float[Array, "n_labels 92"]
    ln_tau: Float[Array, " n_depth"]
    continuum_nodes: Float[Array, " n_nodes"]
    continuum_weights: Float[Array, "n_wave n_nodes"]
    temperature_table: structure.TemperatureTable | None
    labels: LabelSpace = eqx.field(static=True)
    temperature_structure: str = eqx.field(static=True)

    @public
    def __init__(self, labels: LabelSpace | None = None, wavelength=None, temperature_structure="c3k",
                 line_list: LineList | None = None, n_depth: int = 56,
                 solar_composition="mixed", stark: bool = False, window=None, medium=None):  # fmt: skip
        labels, _, _, wavelength, lines = setting(window, labels, wavelength, medium, line_list)
        choices = ("c3k", *structure.ANALYTIC)
        if temperature_structure not in choices:
            raise EmuinferError(
                f"Unknown temperature structure '{temperature_structure}'.{suggestion(temperature_structure, choices)} "
                f"Choose one of: {', '.join(choices)}."
            )
        beyond = np.maximum(np.maximum(wavelength[0] - lines.wavelength, lines.wavelength - wavelength[-1]), 0.0)
        lines = lines[lines.reach > beyond]
        origin = 0.5 * (wavelength[0] + wavelength[-1])
        self.labels, self.temperature_structure = labels, temperature_structure
        self.tables = eos.ElementTables()
        self.constants = {k: jnp.asarray(v) for k, v in line_constants(lines, stark).items()}
        self.groups = line_windows.plan(wavelength, lines.wavelength, lines.reach.astype(float))
        self.centres = jnp.asarray(lines.wavelength - origin, jnp.float32)
        self.offsets = jnp.asarray(wavelength - origin, jnp.float32)
        self.line_wavelength = jnp.asarray(lines.wavelength, jnp.float32)
        self.log_solar = jnp.asarray(solar_composition_of(solar_composition, labels.names), jnp.float32)
        self.abundance_of_labels = jnp.asarray(abundance_matrix(labels.names), jnp.float32)
        self.ln_tau = jnp.asarray(structure.depth_grid(n_depth) * LN_10, jnp.float32)
        nodes = np.linspace(wavelength[0], wavelength[-1], 6)
        self.continuum_nodes = jnp.asarray(nodes, jnp.float32)
        self.continuum_weights = jnp.asarray(np.stack(lagrange_weights(nodes, wavelength), -1), jnp.float32)
        self.temperature_table = structure.TemperatureTable() if temperature_structure == "c3k" else None

    def abundances(self, labels: Float[Array, " n_labels"]) -> Float[Array, " 92"]:
        """N_X/N_H of the 92 elements."""
        return jnp.exp(LN_10 * (self.log_solar + labels @ self.abundance_of_labels))

    def temperature(self, labels: Float[Array, " n_labels"]) -> Float[Array, " n_depth"]:
        """Temperature of each layer in K."""
        teff = labels[self.labels.index("teff")]
        if self.temperature_table is not None:
            # Without a label of its own, [alpha/Fe] is solar.
            values = [
                labels[self.labels.index(n)] if n in self.labels.names else 0.0 for n in self.temperature_table.names
            ]
            return teff * self.temperature_table(jnp.stack(values), self.ln_tau)
        return teff * structure.ANALYTIC[self.temperature_structure](jnp.exp(self.ln_tau)) ** 0.25

    def atmosphere(self, labels) -> dict:
        """The layers from the top down, arrays of shape (n_depth,).

        `ln_tau` (5000 Å), `temperature` (K), `pressure` (gas, dyn cm^-2), `electron_density`, `h1`, `h2` (molecules),
        `he1` and `nuclei` (H nuclei) in cm^-3, `alpha_5000` (cm^-1), `density` (g cm^-3).
        """
        labels = self.labels.to_array(labels, jnp).astype(jnp.float32)
        abundance, temperature = self.abundances(labels), self.temperature(labels)
        gravity = jnp.exp(LN_10 * labels[self.labels.index("logg")])
        pressure = structure.hydrostatic(self.tables, self.ln_tau, temperature, gravity, abundance)
        _, state, alpha = structure.opacity_5000(self.tables, temperature, pressure, abundance)
        return {
            "ln_tau": self.ln_tau, "temperature": temperature, "pressure": pressure,
            "electron_density": jnp.exp(state["ln_ne"]), "alpha_5000": alpha,
            "density": structure.density(self.tables, state, abundance),
            "he1": structure.helium_neutral(self.tables, temperature, state, abundance), **state,
        }  # fmt: skip

    def line_quantities(self, labels, atmosphere, constants=None):
        """Amplitude, damping parameter and inverse Doppler width of the lines, see `lines.line_opacity`.

        `constants`: some of the lines' constants, in place of the synthesizer's own.
        """
        t, ln_ne = atmosphere["temperature"], atmosphere["ln_ne"]
        fractions = eos.ionisation_fractions(self.tables.ln_saha(t), ln_ne[:, None])
        ln_fraction = jnp.log(jnp.maximum(fractions[..., :2], 1e-37)) - self.tables.ln_partition(t)[..., :2]
        ln_abundance = LN_10 * (self.log_solar + labels @ self.abundance_of_labels)
        ln_population = ln_fraction + ln_abundance[:, None] + jnp.log(atmosphere["nuclei"])[:, None, None]
        # Polarisabilities relative to H I give the weights of He I and H2 (Unsöld 1955).
        perturbers = atmosphere["h1"] + 0.42 * atmosphere["he1"] + 0.85 * atmosphere["h2"]
        vmic = labels[self.labels.index("vmic")]
        return line_opacity({**self.constants, **(constants or {})}, t, ln_population.reshape(len(t), -1), perturbers,
                            atmosphere["electron_density"], jnp.log(atmosphere["alpha_5000"]), vmic, self.line_wavelength)  # fmt: skip

    def opacities(self, labels) -> "Opacities":
        """What the formal solution needs at `labels` `(n_labels,)`, float32."""
        layers = self.atmosphere(labels)
        t = layers["temperature"]
        amplitude, a, inverse_width = self.line_quantities(labels, layers)
        line_ratio = line_windows.add_lines(self.groups, self.offsets, self.centres, amplitude, a, inverse_width)
        nodes = self.continuum_nodes[:, None]
        ratio = opacity.continuum(nodes, t, layers, layers["he1"]) / layers["alpha_5000"]
        source_nodes = opacity.planck(nodes, t)
        flux_nodes = transfer.emergent_flux(transfer.optical_depth(self.ln_tau, ratio), source_nodes)
        continuum = jnp.exp(self.continuum_weights @ jnp.log(flux_nodes))
        source = self.continuum_weights @ source_nodes
        total = self.continuum_weights @ ratio + line_ratio
        return Opacities(layers, total, source, continuum)

    @public
    def __call__(self, labels) -> tuple[Float[Array, " n_wave"], Float[Array, " n_wave"]]:
        at = self.opacities(self.labels.to_array(labels, jnp).astype(jnp.float32))
        flux = transfer.emergent_flux(transfer.optical_depth(self.ln_tau, at.total), at.source)
        return flux / at.continuum, at.continuum
