"""What `emuinfer fit` writes and prints of a posterior."""

import json

import numpy as np

from ..errors import EmuinferError
from ..files import write_table
from ..labels.vocabulary import SOLAR_SCALE
from ..posteriors.limits import SIGNS
from .options import console, result_table

SUMMARY, POSTERIOR, CORNER, CATALOGUE = "summary.ecsv", "posterior.nc", "corner.png", "results.fits"
LINES, LINES_FIGURE = "lines.ecsv", "lines.png"


def results_of(arms: int) -> tuple[str, ...]:
    """Names of the files of a fit of this many spectra."""
    per_arm = [name for k in range(1, arms + 1) for name in _names_of_arm(k, arms)]
    return POSTERIOR, *per_arm, CORNER, CATALOGUE, LINES, LINES_FIGURE, SUMMARY


def _names_of_arm(k: int, arms: int) -> tuple[str, str, str]:
    """Figure, model and residuals of one of the spectra."""
    number = "" if arms == 1 else f"-{k}"
    return f"fit{number}.png", f"model{number}.fits", f"residual{number}.fits"


def write_results(posterior, model, folder, settings):
    """Write summary, catalogue, posterior, spectra and figures; returns the summary, a table with one row per parameter."""
    from ..forecast.lines import lines_of_limits
    from ..plotting import plot_corner
    from ..posteriors import draws_of, save_posterior, stored_limits, summary_table
    from ..survey.catalogue import write_catalogue
    from .fit_catalogue import catalogue_of_fit

    name = model.spectra[0].observation.name
    table = summary_table(posterior, names=list(model.names), units=model.units)
    facts = {k.upper(): posterior.attrs.get(k) for k in ("medium", "frame", "seed")}
    facts |= {
        "EMULATOR": posterior.attrs.get("emulator_hash"),
        "VERSION": json.loads(posterior.attrs["versions"])["emuinfer"],
    }
    told = lines_of_limits(model, posterior, stored_limits(posterior))
    table["limit_lines"] = [told.get(n, "") for n in table["label"].tolist()]
    catalogue = catalogue_of_fit(posterior, model, table, facts, told)
    write_catalogue(catalogue, folder / CATALOGUE, EmuinferError)
    write_table(_described(table, catalogue, _meta(posterior, name, settings)), folder / SUMMARY)
    save_posterior(posterior, folder / POSTERIOR)
    _write_spectra(posterior, len(model.spectra), folder)
    _plot_fits(posterior, model, folder)
    if settings["lines"]:
        _write_lines(posterior, model, folder, settings["lines"])
    samples = {n: draws_of(posterior, n) for n in model.names}
    moving = {n: x for n, x in samples.items() if np.isfinite(x).all() and np.ptp(x) > 0}
    if moving:
        plot_corner(folder / CORNER, moving, title=name)
    return table


def _described(table, catalogue, meta):
    """The summary with bits of `emuinfer.survey.FLAGS`, UCD and description of each parameter."""
    from ..labels.vocabulary import description_of, ucd_of

    table = table.copy()
    table["flag"] = [int(catalogue[f"flag_{n}"][0]) for n in table["label"]]
    table["ucd"] = [ucd_of(n) for n in table["label"]]
    table["description"] = [description_of(n) for n in table["label"]]
    table.meta = meta
    return table


def _write_spectra(posterior, arms, folder):
    """Model and residuals of each spectrum, for specutils and jdaviz."""
    from ..observations.fitted import fitted_spectra, write_spectrum

    for k in range(1, arms + 1):
        spectra = fitted_spectra(posterior, None if arms == 1 else k)
        _, model, residual = _names_of_arm(k, arms)
        write_spectrum(spectra["model"], folder / model)
        write_spectrum(spectra["residual"], folder / residual)


def lines_asked(asked, names) -> list[str]:
    """The parameters that `--lines` names, all labels for `all`; `EmuinferError` on unknown ones."""
    wanted = list(names) if "all" in asked else list(dict.fromkeys(asked))
    if unknown := [n for n in wanted if n not in names]:
        raise EmuinferError(f"--lines {unknown[0]}: that is not fitted. Give one of {', '.join(names)}, or all.")
    return wanted


def _write_lines(posterior, model, folder, asked):
    """Table and figure of the lines that tell of the parameters in `asked`."""
    from astropy.table import vstack

    from ..forecast import lines_of, plot_lines

    names = lines_asked(asked, [n for n in model.names if n in model.label_space.names])
    tables = []
    for name in names:
        table = lines_of(model, posterior, name)
        table.add_column([name] * len(table), name="label", index=0)
        tables.append(table)
    write_table(vstack(tables, metadata_conflicts="silent"), folder / LINES)
    plot_lines(folder / LINES_FIGURE, model, posterior, names, title=model.spectra[0].observation.name)


def _plot_fits(posterior, model, folder):
    """One figure for each spectrum."""
    from ..plotting import plot_fit

    facts, flux = posterior["constant_data"], posterior["observed_data"]["flux"].values
    draws = posterior["posterior_predictive"]["model_flux"].values
    low, median, high = np.quantile(draws, [0.16, 0.5, 0.84], axis=(0, 1))
    start = 0
    for k, spectrum in enumerate(model.spectra, start=1):
        part = slice(start, start + len(spectrum.wavelength))
        start = part.stop
        plot_fit(
            folder / _names_of_arm(k, len(model.spectra))[0],
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
        "medium",
        "frame",
        "emulator_hash",
        "reduced_hash",
        "data_hash",
        "goodness",
        "k_hat",
        "verification",
        "in_domain",
        "created_at",
    )
    meta = {"observation": name, "solar_scale": SOLAR_SCALE, "emulator": settings["emulator_name"]}
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


def _print_limits(out, table):
    """What the data do not measure: limits with the lines that decided them, and what they say nothing of."""
    for row in table:
        if np.isfinite(row["limit"]):
            sign = SIGNS[row["verdict"]]
            decided = f" ({row['limit_lines']})" if row["limit_lines"] else ""
            bound = "lower" if sign == "<" else "upper"
            out.print(
                f"Limit: {row['label']} {sign} {row['limit']:.3g} at 95 %{decided}: the {bound} bound is not excluded."
            )
    if silent := [row["label"] for row in table if SIGNS.get(row["verdict"]) == "?"]:
        out.print(f"Unconstrained: {', '.join(silent)}; the posterior is about as wide as the prior.")


def print_results(table, posterior, name, folder):
    """The summary, warnings, and where everything was written."""
    out = console()
    columns = [n for n in table.colnames if n not in ("verdict", "limit", "limit_lines")]
    shown = result_table(columns, name or None)
    for row in table:
        decimals = int(np.clip(1 - np.floor(np.log10(row["sd"])), 0, 6)) if row["sd"] > 0 else 4
        values = [f"{row[k]:.{decimals}f}" for k in ("mean", "sd", "q16", "median", "q84")]
        shown.add_row(row["label"], row["unit"], *values, f"{row['r_hat']:.3f}", f"{row['ess_bulk']:.0f}")
    out.print(shown)
    _print_limits(out, table)
    for text in json.loads(posterior.attrs["warnings"]):
        out.print(f"Warning: {text}")
    if posterior.attrs.get("goodness") == "good":
        out.print(posterior.attrs["goodness_message"])
    if posterior.attrs["verification"] == "ok":
        out.print(posterior.attrs["verification_message"])
    written = sorted(
        (p.name for p in folder.iterdir() if p.suffix in (".ecsv", ".nc", ".png", ".fits")),
        key=lambda n: (n != SUMMARY, n),
    )
    out.print(f"Written to {folder}: {', '.join(written)}")
