"""LTE spectra of late-type stars from labels: atmosphere, line opacity, formal solution. All in JAX, float32."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..constants import LN_10
from ..entry import public
from ..errors import EmuinferError, suggestion
from ..labels.space import LabelSpace
from ..labels.windows import OPTICAL_LINES_RANGE
from ..wavelengths.interpolation import from_nodes, lagrange_weights, node_weights
from . import chemistry, eos, line_windows, opacity, structure, transfer
from .elements import abundance_matrix
from .elements import solar_composition as solar_composition_of
from .hydrogen import HydrogenLines
from .lines import LineList, line_constants, line_opacity
from .molecular_lines import MolecularLines, chosen_molecules
from .setting import setting


class Opacities(NamedTuple):
    """`layers` of the atmosphere; absorption over the reference opacity `total` and Planck function `source`, both `(n_wave, n_depth)`;
    `continuum` flux `(n_wave,)`; `scattered` `(n_wave, n_depth)`: the part of `total` that scatters, None where nothing is said to."""

    layers: dict
    total: Float[Array, "n_wave n_depth"]
    source: Float[Array, "n_wave n_depth"]
    continuum: Float[Array, " n_wave"]
    scattered: Float[Array, "n_wave n_depth"] | None = None


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
    - `stark`: whether to add approximate Stark widths. The lists have none. Turbospectrum uses none for most lines, and wide ones for
      lines from high levels of C I.
    - `window`: a `Window` of `emuinfer.labels`, or its name; the default one if None. `medium`: "air" or "vacuum", in place
      of the window's.
    - `molecules`: whether there is chemical equilibrium with molecules and lines of them; True for all of
      `molecular_lines.MOLECULES`, or their names. `hydrogen_lines`: whether there are Balmer and Paschen lines. `continuum`:
      `"basic"`, H-, H I and scattering as at 5200 Å, or `"full"`, with the edges of H I, with H2+ and metals. `scattering`: whether
      electrons, H I, H2 and He I scatter photons, by the mean intensity in the Eddington approximation, or absorb them. By default,
      None, all of these where the lines are those of the whole optical, and none with the line list of a window, whose emulator was
      made so, or of your own.

    Call it with labels of shape `(n_labels,)`; it may be differentiated, and transformed by `jax.vmap` and
    `eqx.filter_jit`. **Returns** the normalised flux and the continuum (erg s^-1 cm^-2 Å^-1 at the stellar surface,
    divided by 1e6), both of shape `(n_wave,)`, float32.
    """

    tables: eos.ElementTables
    constants: dict
    groups: tuple
    centres: Float[Array, " n_lines"]
    offsets: Float[Array, " n_wave"]
    remainders: tuple | None
    line_wavelength: Float[Array, " n_lines"]
    log_solar: Float[Array, " 92"]
    abundance_of_labels: Float[Array, "n_labels 92"]
    ln_tau: Float[Array, " n_depth"]
    continuum_nodes: Float[Array, " n_nodes"]
    continuum_weights: Float[Array, "n_wave n_weights"]
    continuum_first: Int[Array, " n_wave"] | None
    hydrogen: HydrogenLines | None
    molecules: MolecularLines | None
    chemistry: chemistry.Molecules | None
    continuum: str = eqx.field(static=True)
    scattering: bool = eqx.field(static=True)
    stark: bool = eqx.field(static=True)
    n_angles: int = eqx.field(static=True)
    temperature_table: structure.TemperatureTable | None
    labels: LabelSpace = eqx.field(static=True)
    temperature_structure: str = eqx.field(static=True)

    @public
    def __init__(self, labels: LabelSpace | None = None, wavelength=None, temperature_structure="c3k",
                 line_list: LineList | None = None, n_depth: int = 56,
                 solar_composition="mixed", stark: bool | None = None, window=None, medium=None,
                 hydrogen_lines: bool | None = None, molecules=None, continuum: str | None = None,
                 scattering: bool | None = None):  # fmt: skip
        labels, _, _, wavelength, lines = setting(window, labels, wavelength, medium, line_list)
        wide = lines.covers == OPTICAL_LINES_RANGE
        self.continuum = (
            ("full" if wide else "basic") if continuum is None else one_of("continuum", continuum, ("basic", "full"))
        )
        self.n_angles = 3 if self.continuum == "full" else 4  # 3 change the flux by 5e-5, and 3e-4 at most
        self.stark = wide if stark is None else bool(stark)
        self.scattering = wide if scattering is None else bool(scattering)
        self.hydrogen = HydrogenLines(wavelength) if (wide if hydrogen_lines is None else hydrogen_lines) else None
        names = chosen_molecules(wide if molecules is None else molecules)
        self.molecules = MolecularLines(wavelength, names) if names else None
        self.chemistry = chemistry.Molecules() if names else None
        one_of("temperature structure", temperature_structure, ("c3k", *structure.ANALYTIC))
        beyond = np.maximum(np.maximum(wavelength[0] - lines.wavelength, lines.wavelength - wavelength[-1]), 0.0)
        lines = lines[lines.reach > beyond]
        origin = 0.5 * (wavelength[0] + wavelength[-1])
        self.labels, self.temperature_structure = labels, temperature_structure
        self.tables = eos.ElementTables()
        self.constants = {k: jnp.asarray(v) for k, v in line_constants(lines, self.stark).items()}
        self.groups = line_windows.plan(wavelength, lines.wavelength, lines.reach.astype(float), fine=wide)
        self.remainders = line_windows.remainders(wavelength, lines.wavelength, origin)
        self.centres = jnp.asarray(lines.wavelength - origin, jnp.float32)
        self.offsets = jnp.asarray(wavelength - origin, jnp.float32)
        self.line_wavelength = jnp.asarray(lines.wavelength, jnp.float32)
        self.log_solar = jnp.asarray(solar_composition_of(solar_composition, labels.names), jnp.float32)
        self.abundance_of_labels = jnp.asarray(abundance_matrix(labels.names), jnp.float32)
        self.ln_tau = jnp.asarray(structure.depth_grid(n_depth) * LN_10, jnp.float32)
        nodes, self.continuum_first, weights = _continuum_nodes(wavelength, self.continuum)
        self.continuum_nodes, self.continuum_weights = (
            jnp.asarray(nodes, jnp.float32),
            jnp.asarray(weights, jnp.float32),
        )
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
        `he1` and `nuclei` (H nuclei) in cm^-3, `alpha_5000` (cm^-1), `density` (g cm^-3); with molecules `neutral` and `ln_free` of
        `chemistry.solve`, with the full continuum `protons` and `ions`.
        """
        labels = self.labels.to_array(labels, jnp).astype(jnp.float32)
        abundance, temperature = self.abundances(labels), self.temperature(labels)
        gravity, full = jnp.exp(LN_10 * labels[self.labels.index("logg")]), self.continuum == "full"
        pressure = structure.hydrostatic(self.tables, self.ln_tau, temperature, gravity, abundance, full)
        _, state, alpha = structure.opacity_5000(self.tables, temperature, pressure, abundance, full)
        if self.chemistry is not None:
            state.update(chemistry.solve(self.chemistry, self.tables, temperature, state, abundance))
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
        if "ln_free" in atmosphere:
            ln_population = ln_population + atmosphere["ln_free"][..., None]
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
        line_ratio = line_windows.add_lines(
            self.groups, self.offsets, self.centres, amplitude, a, inverse_width, self.remainders
        )
        nodes = self.continuum_nodes[:, None]
        ratio = opacity.continuum(nodes, t, layers, layers["he1"]) / layers["alpha_5000"]
        at_pixels = lambda values: from_nodes(self.continuum_first, self.continuum_weights, values)
        vmic = labels[self.labels.index("vmic")]
        total = at_pixels(ratio) + line_ratio
        if self.molecules is not None:
            ln_partition = self.tables.ln_partition(t)[..., 0]
            total = total + self.molecules(t, ln_partition, layers["neutral"], jnp.log(layers["alpha_5000"]), vmic)
        if self.hydrogen is not None:
            of_hydrogen = self.hydrogen(t, layers["ln_ne"], layers["h1"], layers["he1"], vmic)
            total = total + of_hydrogen / layers["alpha_5000"]
        planck, scattered = opacity.planck(nodes, t), None
        if self.scattering:
            scattered = opacity.scattering(nodes, layers["ln_ne"], layers["h1"], layers["he1"], layers["h2"])
            scattered = scattered / layers["alpha_5000"]
        continuum = jnp.exp(at_pixels(jnp.log(self.emergent(ratio, planck, scattered))))
        return Opacities(
            layers, total, at_pixels(planck), continuum, None if scattered is None else at_pixels(scattered)
        )

    def emergent(self, total, planck, scattered=None) -> Float[Array, " n_points"]:
        """Flux at the surface from the parts of `Opacities`, arrays `(n_points, n_depth)`."""
        if scattered is None:
            return transfer.emergent_flux(transfer.optical_depth(self.ln_tau, total), planck, self.n_angles)

        def flux(total, planck, scattered):
            tau = transfer.optical_depth(self.ln_tau, total)
            source = transfer.scattered_source(tau, planck, scattered / total)
            return transfer.emergent_flux(tau, source, self.n_angles)

        return transfer.in_blocks(flux, (total, planck, scattered))

    @public
    def __call__(self, labels) -> tuple[Float[Array, " n_wave"], Float[Array, " n_wave"]]:
        at = self.opacities(self.labels.to_array(labels, jnp).astype(jnp.float32))
        return self.emergent(at.total, at.source, at.scattered) / at.continuum, at.continuum


def one_of(what: str, value: str, choices) -> str:
    """`value`, if it is one of the choices. **Raises:** `EmuinferError` that names them."""
    if value not in choices:
        raise EmuinferError(
            f"Unknown {what} '{value}'.{suggestion(value, choices)} Choose one of: {', '.join(choices)}."
        )
    return value


def _continuum_nodes(wavelength, kind):
    """Wavelengths at which the continuum is computed, and how it is interpolated: all nodes for each pixel, or four of many."""
    lo, hi = wavelength[0], wavelength[-1]
    if kind == "basic":
        nodes = np.linspace(lo, hi, 6)
        return nodes, None, np.stack(lagrange_weights(nodes, wavelength), -1)
    # Denser where the lines of hydrogen merge before the Paschen edge, whatever the range.
    nodes = np.unique(np.concatenate([np.arange(3900.0, 9500.0, 50.0), np.arange(8150.0, 8600.0, 10.0)]))
    nodes = nodes[max(np.searchsorted(nodes, lo) - 2, 0) : np.searchsorted(nodes, hi) + 2]
    first, weights = node_weights(nodes, wavelength)
    return nodes, None if first is None else jnp.asarray(first), weights
