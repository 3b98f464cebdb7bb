"""The table of results, a row per star, as TOPCAT, the VO and astropy read it."""

import numpy as np

from ..files import described_hdu, written_whole
from ..labels.vocabulary import SOLAR_SCALE, column_facts
from .limits import NO_VERDICT
from .summary import FLAGS, MEASURED, parameter_flags

STATISTICS = ("median", "sd", "q16", "q84", "mean", "r_hat", "ess")
FACTS = (*MEASURED, "limit_lines", "divergences", "repaired", "n_pixels", "snr", "seconds", "problem")
# Keywords of the header and what they say; FITS allows eight letters.
KEYWORDS = {
    "PARAMS": "parameters in the order of the covariance",
    "SOLAR": "scale of the abundances",
    "MEDIUM": "of the wavelengths",
    "FRAME": "that velocities are relative to",
    "SEED": "of the fit",
    "EMULATOR": "hash of its weights",
    "VERSION": "of emuinfer",
}


def catalogue_of(whole: dict, names, units, meta):
    """An `astropy.table.Table` of all stars from arrays with a row per star, sorted by `row`.

    For each parameter its median with the parameter's own name, its standard deviation as `e_…` and `…_sd`, its own bits of
    `FLAGS` as `flag_…`, and `_q16`, `_q84`, `_mean`, `_r_hat`, `_ess`; where a verdict is sought, `l_…` (`<` or `>` where the data give
    a limit, `?` where they say nothing, else empty) and the limit `…_limit`; `covariance` in the order of `meta["PARAMS"]`; and the
    facts of the fit that `whole` has. Each column has a description, and its UCD in `column.meta["ucd"]`.
    """
    from astropy.table import Table

    table = Table({n: whole[n] for n in ("row", "name", "flag")})
    own = parameter_flags(whole)
    for i, name in enumerate(names):
        unit = units.get(name) or ""
        for key in STATISTICS:
            column = name if key == "median" else f"{name}_{key}"
            table[column] = whole[key][:, i].astype(np.float32 if key != "median" else np.float64)
            if key == "median":
                table[f"e_{name}"] = whole["sd"][:, i].astype(np.float32)
                table[f"flag_{name}"] = own[:, i].astype(np.int16)
        if "limit" in whole and not (whole["limit_sign"][:, i] == NO_VERDICT).any():
            table[f"l_{name}"] = whole["limit_sign"][:, i]
            table[f"{name}_limit"] = whole["limit"][:, i].astype(np.float32)
        for column in (name, f"e_{name}", *(f"{name}_{key}" for key in ("sd", "q16", "q84", "mean", "limit"))):
            # FITS knows no unit dex: it is in the description.
            if unit and "dex" not in unit and column in table.colnames:
                table[column].unit = unit
    table["covariance"] = whole["covariance"].astype(np.float32)
    for key in FACTS:
        if key in whole:
            table[key] = whole[key]
    for column in table.colnames:
        ucd, text = column_facts(column, names)
        name = next(
            (n for n in names if column in (n, f"e_{n}", f"{n}_limit", *(f"{n}_{k}" for k in STATISTICS[:5]))), None
        )
        unit = str(units.get(name) or "") if name else ""
        table[column].description = f"{text} [{unit}]" if "dex" in unit else text
        table[column].meta["ucd"] = ucd
    if "seconds" in table.colnames:
        table["seconds"].unit = "s"
    table.sort("row")
    table.meta = {"SOLAR": SOLAR_SCALE, **{k: v for k, v in meta.items() if v not in (None, "")}}
    return table


def write_catalogue(table, path, error, **more):
    """Write a table of `catalogue_of` as FITS, with units (TUNIT), UCDs (TUCD) and descriptions (TCOMM) of the columns."""
    from astropy.io import fits

    comments = [f"{key}: {text}" for key, text in KEYWORDS.items() if key in table.meta]
    hdu = described_hdu(table, "RESULTS", [*comments, *(f"flag {bit}: {name}" for name, bit in FLAGS.items())])
    with written_whole(path, error, **more) as temporary:
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(temporary, overwrite=True)
