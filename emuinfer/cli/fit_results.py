"""What `emuinfer fit` writes and prints of a posterior."""

import json

import numpy as np

from ..files import write_table
from .options import console, result_table

SUMMARY, POSTERIOR, CORNER = "summary.ecsv", "posterior.nc", "corner.png"


def results_of(arms: int) -> tuple[str, ...]:
    """Names of the files of a fit of this many spectra."""
    figures = ("fit.png",) if arms == 1 else tuple(f"fit-{k}.png" for k in range(1, arms + 1))
    return POSTERIOR, *figures, CORNER, SUMMARY


def write_results(posterior, model, folder, settings):
    """Write summary, posterior and figures to `folder`; returns the summary, a table with one row per parameter."""
    from ..plotting import plot_corner
    from ..posteriors import draws_of, save_posterior, summary_table

    name = model.spectra[0].observation.name
    table = summary_table(posterior, names=list(model.names), units=model.units)
    table.meta = _meta(posterior, name, settings)
    write_table(table, folder / SUMMARY)
    save_posterior(posterior, folder / POSTERIOR)
    _plot_fits(posterior, model, folder)
    samples = {n: draws_of(posterior, n) for n in model.names}
    moving = {n: x for n, x in samples.items() if np.isfinite(x).all() and np.ptp(x) > 0}
    if moving:
        plot_corner(folder / CORNER, moving, title=name)
    return table


def _plot_fits(posterior, model, folder):
    """One figure for each spectrum."""
    from ..plotting import plot_fit

    facts, flux = posterior["constant_data"], posterior["observed_data"]["flux"].values
    draws = posterior["posterior_predictive"]["model_flux"].values
    low, median, high = np.quantile(draws, [0.16, 0.5, 0.84], axis=(0, 1))
    figures = [name for name in results_of(len(model.spectra)) if name.startswith("fit")]
    start = 0
    for spectrum, figure in zip(model.spectra, figures):
        part = slice(start, start + len(spectrum.wavelength))
        start = part.stop
        plot_fit(
            folder / figure,
            spectrum.wavelength,
            flux[part],
            facts["uncertainty"].values[part],
            median[part],
            facts["good"].values[part] > 0,
            model_band=(low[part], high[part]),
            model_error=facts["model_error"].values[part],
            title=spectrum.observation.name,
        )


def _meta(posterior, name, settings) -> dict:
    """What the summary says beside its rows: plain values only, as ECSV wants them."""
    attrs = posterior.attrs
    known = (
        "emulator_hash",
        "reduced_hash",
        "data_hash",
        "goodness",
        "k_hat",
        "verification",
        "in_domain",
        "created_at",
    )
    meta = {"observation": name, "emulator": settings["emulator_name"]}
    meta |= {k: attrs[k] for k in known if k in attrs}
    if "goodness_statistics" in attrs:
        meta["goodness_statistics"] = json.loads(attrs["goodness_statistics"])
    meta |= dict(settings["sample"].items())
    priors = settings["model"]["priors"]
    meta |= {
        "broadening": settings["model"]["broadening"],
        "fixed": {n: p for n, p in priors.items() if isinstance(p, float)},
    }
    if settings["written_priors"]:
        meta["priors"] = settings["written_priors"]
    return meta | {"warnings": json.loads(attrs["warnings"]), "versions": json.loads(attrs["versions"])}


def print_results(table, posterior, name, folder):
    """The summary, warnings, and where everything was written."""
    out = console()
    shown = result_table(table.colnames, name or None)
    for row in table:
        decimals = int(np.clip(1 - np.floor(np.log10(row["sd"])), 0, 6)) if row["sd"] > 0 else 4
        values = [f"{row[k]:.{decimals}f}" for k in ("mean", "sd", "q16", "median", "q84")]
        shown.add_row(row["label"], row["unit"], *values, f"{row['r_hat']:.3f}", f"{row['ess_bulk']:.0f}")
    out.print(shown)
    for text in json.loads(posterior.attrs["warnings"]):
        out.print(f"Warning: {text}")
    if posterior.attrs.get("goodness") == "good":
        out.print(posterior.attrs["goodness_message"])
    if posterior.attrs["verification"] == "ok":
        out.print(posterior.attrs["verification_message"])
    written = sorted(
        (p.name for p in folder.iterdir() if p.suffix in (".ecsv", ".nc", ".png")), key=lambda n: (n != SUMMARY, n)
    )
    out.print(f"Written to {folder}: {', '.join(written)}")
