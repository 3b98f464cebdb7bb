"""ESO Phase 3: spectra as ESO's Science Data Product standard (issue 8, section 5) has them. Host only.

One row of arrays; what a column holds is said by its UCD (`TUCDn`) and UType (`TUTYPn`). In the standard, `em.wl` means
vacuum and `em.wl;obs.atmos` air; pipelines that calibrate in air wrote the first for years.
"""

import numpy as np

from ....errors import ObservationError, suggestion
from ..choices import Choices
from ..frames import frame_of, in_frame
from ..header import from_header
from ..units import standard_deviation, with_unit
from .drs import snr_of_orders

# Instruments whose pipelines give wavelengths in air (their release descriptions, https://www.eso.org/rm/publicAccess).
IN_AIR = ("HARPS", "FEROS", "UVES", "GIRAFFE", "FLAMES", "XSHOOTER")


def recognises(hdus) -> bool:
    """Whether the open FITS file has a table of one row whose columns' UCDs name a wavelength."""
    return _table(hdus) is not None


def read(hdus, choices: Choices) -> dict:
    """Fields of the spectrum. QUAL: zero is good."""
    hdu = _table(hdus)
    header = {**dict(hdus[0].header), **dict(hdu.header)}
    names = hdu.columns.names
    key = lambda kind, n: str(hdu.header.get(f"{kind}{names.index(n) + 1}", "")).lower()
    ucd = {n: key("TUCD", n) for n in names}
    role = {n: key("TUTYP", n).split(":")[-1].removeprefix("spectrum.").removeprefix("data.") for n in names}
    pick = lambda given, ours: _given(given, names) if given is not None else next(iter(ours), None)
    waves = [n for n in names if ucd[n].startswith("em.wl") and hdu.data[n].size > 1]
    waves.sort(key=lambda n: choices.medium is not None and _is_air(ucd[n]) != (choices.medium == "air"))
    wave = pick(choices.wavelength_column, waves)
    flux = pick(
        choices.flux_column,
        [n for n in names if n.upper() == "FLUX"]
        + [n for n in names if role[n] == "fluxaxis.value" or ucd[n].startswith("phot.")],
    )
    if flux is None:
        raise ObservationError(f"No column has the UCD of a flux. The columns are: {', '.join(names)}.")
    error = pick(
        choices.uncertainty_column,
        [n for n in names if n.upper() == flux.upper().replace("FLUX", "ERR")]
        + [n for n in names if role[n] == "fluxaxis.accuracy.staterror"],
    )
    quality = pick(
        choices.mask_column,
        [n for n in names if n.upper() == flux.upper().replace("FLUX", "QUAL")]
        + [n for n in names if role[n] == "fluxaxis.accuracy.qualitystatus"],
    )
    values = lambda n: np.asarray(hdu.data[n]).reshape(-1)
    fields = from_header(header)
    unit = choices.wavelength_unit or dict(zip(names, hdu.columns.units))[wave]
    fields.update(wavelength=with_unit(values(wave).astype(float), unit), flux=values(flux).astype(float))
    if error is not None:
        fields["uncertainty"] = standard_deviation(values(error), error.lower())
        if not np.isfinite(fields["uncertainty"]).any():
            fields.update(_other_snr(header, names, values, fields))
    if quality is not None:
        fields["mask"] = values(quality) != 0
    fields["medium"], notes = _medium(ucd[wave], wave, waves, header, fields["medium"])
    fields["notes"] = (*fields.get("notes", ()), *notes)
    return in_frame(fields, frame_of(header), header)


def _other_snr(header, names, values, fields) -> dict:
    """The signal-to-noise ratio of each pixel where a product without errors has it: a column, or HARPS' orders."""
    if "SNR" in names and (values("SNR") > 0).any():
        ratio = values("SNR").astype(float)
        return {"snr": np.where(ratio > 0, ratio, np.nanmedian(ratio[ratio > 0]))}
    ratio = snr_of_orders(header, fields["wavelength"].to_value("AA"), 10 * float(header.get("SPEC_BIN", np.nan)))
    if ratio is None or not np.isfinite(ratio).all():
        return {}
    note = "signal-to-noise ratio of each pixel from those of the orders in the header"
    return {
        "snr": ratio,
        "notes": (*fields.get("notes", ()), note + (f" (SNR: {fields['snr']:g})" if fields["snr"] else "")),
    }


def _table(hdus):
    for hdu in hdus[1:]:
        ucds = [str(v).lower() for k, v in hdu.header.items() if k.startswith("TUCD")]
        one_row = hasattr(hdu, "columns") and hdu.data is not None and len(hdu.data) == 1
        if one_row and any(u.startswith("em.wl") for u in ucds):
            return hdu
    return None


def _given(name, names):
    if name not in names:
        raise ObservationError(
            f"There is no column '{name}'.{suggestion(name, names)} The columns are: {', '.join(names)}."
        )
    return name


def _is_air(ucd: str) -> bool:
    return "obs.atmos" in ucd


def _medium(ucd, wave, waves, header, stated):
    """The medium, and a note where it is not what the UCD says."""
    if _is_air(ucd):
        return "air", ()
    if stated is not None:
        return stated, ()
    instrument = str(header.get("INSTRUME", "")).strip().upper()
    both = any(_is_air(str(header.get(f"TUCD{i}", "")).lower()) for i in range(1, 40)) and len(waves) > 1
    software = str(header.get("PROCSOFT", "")).strip().upper()
    modern = instrument == "HARPS" and software != "" and not software.startswith("HARPS_")  # ESPRESSO's pipeline
    if instrument in IN_AIR and not both and not modern:
        return "air", (
            f"wavelengths taken to be in air, as {instrument}'s pipeline gives them, though the UCD of {wave} would mean vacuum",
        )
    return "vacuum", ()
