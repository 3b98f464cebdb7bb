"""Do posteriors and fits reach the Cramér–Rao bound? `python -m tests.benchmarks.bounds_truth [--stars 50] [--snr 100]`

Mock stars well inside the domain of the default emulator, 5101–5299 Å at R = 20,000, three pixels per FWHM; free are the
twelve labels, velocity, broadening and a continuum of nine terms. For each star: (1) NUTS on the spectrum without noise,
standard deviation over the bound; (2) 200 spectra with noise, each fitted by Gauss–Newton steps, scatter over the bound.
Both use the surrogate around the star (`fit_local`), as fits do; its log likelihood is compared with the full chain's.
Writes `results/bounds_truth.json`, `.md` and `.png`.
"""

import argparse
import json
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import emuinfer as ei
from emuinfer.emulators import fit_local
from emuinfer.emulators.local import LocalSpectrum
from emuinfer.forecast import Exposure, Forecast, Instrument
from emuinfer.forecast.derivatives import pixel_flux
from emuinfer.forward.continuum import Continuum
from emuinfer.labels.design import sobol_design
from emuinfer.likelihoods.priors import domain_penalty
from emuinfer.samplers import get_sampler

RESULTS = Path(__file__).parent / "results"
INSTRUMENT = Instrument.single(5101.0, 5299.0, 20_000.0, 3.0)
LOCAL, WIDEN, REALISATIONS = 420, 1.5, 200
CENTRE = {
    "teff": 5400,
    "logg": 3.6,
    "fe_h": -0.5,
    "vmic": 1.4,
    "mg_fe": 0.2,
    "ca_fe": 0.15,
    "ti_fe": 0.15,
    "cr_fe": 0.0,
    "mn_fe": -0.05,
    "co_fe": 0.0,
    "ni_fe": 0.0,
    "y_fe": 0.0,
}
HALF = {
    "teff": 900,
    "logg": 1.0,
    "fe_h": 0.7,
    "vmic": 0.5,
    "mg_fe": 0.2,
    "ca_fe": 0.15,
    "ti_fe": 0.15,
    "cr_fe": 0.15,
    "mn_fe": 0.2,
    "co_fe": 0.15,
    "ni_fe": 0.1,
    "y_fe": 0.2,
}
NEAR = 4.0  # bounds: nearer than this to the edge of the domain, the flat prior cuts the posterior


class Star(eqx.Module):
    """What the density of one mock star needs."""

    local: LocalSpectrum
    continuum: Continuum
    flux: jax.Array
    ivar: jax.Array


def stars(space, n):
    """Sobol points of a box well inside the domain, `(n, n_labels)`."""
    inner = ei.LabelSpace(
        space.names,
        [CENTRE[k] - HALF[k] for k in space.names],
        [CENTRE[k] + HALF[k] for k in space.names],
        space.units,
        tuple((dict(c), b - 0.3) for c, b in space.constraints),
    )
    return sobol_design(inner, n, seed=5)


def make_density(space):
    def log_density(z, star):
        value, _ = star.continuum.log_likelihood(star.local(z), star.flux, star.ivar, star.ivar)
        return value + domain_penalty(space, z[: len(space)])

    return log_density


@eqx.filter_jit
def spectra_at(flux_of, operator, rows, space):
    names = (*space.names, "rv", "vbroad")

    def one(row):
        values = dict(zip(names, row))
        values |= space.to_dict(space.unscale(row[: len(space)]))
        return pixel_flux(flux_of, operator, values, space)

    return jax.lax.map(one, rows, batch_size=4)


@eqx.filter_jit
def fitted(star, start, unit, covariance, noise):
    """Parameters `(r, n)` that fit the spectra flux + noise `(r, n_pix)` best, as steps from `start` in `unit`.

    The steps are Gauss–Newton's with the information at the truth, and the slope of χ² where the iteration stands.
    """
    n, terms = len(start), star.continuum.basis[: star.continuum.n_terms]
    root = jnp.sqrt(star.ivar)

    def one(noise):
        data = star.flux + noise

        def residual(step):
            model = star.local(start + unit * step[:n]) * ((star.continuum.mean + step[n:]) @ terms)
            return jnp.concatenate([root * (model - data), step[n:] / star.continuum.sd])

        def newton(step, _):
            value, back = jax.vjp(residual, step)
            return step - covariance @ back(value)[0], None

        return jax.lax.scan(newton, jnp.zeros(len(covariance)), None, length=12)[0][:n]

    return jax.lax.map(one, noise, batch_size=10)


def run_star(emulator, labels, snr, density, seed, draws):
    space = emulator.label_space
    forecast = Forecast(emulator, labels, Exposure(INSTRUMENT, snr))
    bounds = forecast.bounds(emulator_error=None)
    spectrum, n = forecast.spectra[0], len(space) + 2
    unit = np.r_[space.half_width, 1.0, 1.0]
    covariance = bounds.covariance[:n, :n] / np.outer(unit, unit)
    truth = np.r_[space.scale(np.asarray(labels)), 0.0, 3.0].astype(np.float32)
    rng = np.random.default_rng([seed, 1])
    root = np.linalg.cholesky(covariance)
    rows = (truth + WIDEN * rng.standard_normal((LOCAL, n)) @ root.T).astype(np.float32)
    exact = lambda rows: np.asarray(spectra_at(forecast._flux_of, spectrum.operator, jnp.asarray(rows), space))
    clock = [time.perf_counter()]
    local = fit_local(rows, exact(rows), components=48)
    flux = exact(truth[None])[0]
    ivar = jnp.full(len(flux), snr**2, jnp.float32)
    star = Star(local, Continuum(spectrum.wavelength), jnp.asarray(flux), ivar)
    clock.append(time.perf_counter())
    result = get_sampler("nuts")(
        density, truth, star, seed=seed, chains=4, warmup=150, draws=draws, covariance=covariance, progress=False
    )
    clock.append(time.perf_counter())
    positions = result.positions.reshape(-1, n).astype(float)
    some = positions[rng.choice(len(positions), 60, replace=False)].astype(np.float32)
    own, full = (np.asarray(x) for x in log_likelihoods(star, jnp.asarray(some), jnp.asarray(exact(some))))
    sd = np.sqrt(np.diag(covariance))
    noise = rng.standard_normal((REALISATIONS, len(flux))) / snr
    own_unit = np.r_[
        sd * unit, np.ones(len(bounds.names) - n)
    ]  # fits step in bounds, the continuum's coefficients in 1
    as32 = lambda a: jnp.asarray(a, jnp.float32)
    inverse = as32(bounds.covariance / np.outer(own_unit, own_unit))
    fits = np.asarray(fitted(star, as32(truth), as32(sd), inverse, as32(noise)))
    clock.append(time.perf_counter())
    diverged = ~np.isfinite(fits).all(1) | (np.abs(fits).max(1) > 10)  # far outside the surrogate's reach
    fits = fits[~diverged]
    edge = np.minimum(*(np.abs(s - truth[: len(space)]) for s in (-1.0, 1.0))) / sd[: len(space)]
    return {
        "labels": dict(zip(space.names, np.asarray(labels, float).tolist())),
        "bound": dict(zip(bounds.names[:n], (sd * unit).tolist())),
        "nuts_over_bound": dict(zip(bounds.names[:n], (positions.std(0, ddof=1) / sd).tolist())),
        "nuts_shift_in_bounds": dict(zip(bounds.names[:n], ((positions.mean(0) - truth) / sd).tolist())),
        "scatter_over_bound": dict(zip(bounds.names[:n], fits.std(0, ddof=1).tolist())),
        "bias_in_bounds": dict(zip(bounds.names[:n], fits.mean(0).tolist())),
        "edge_in_bounds": dict(zip(space.names, edge.tolist())),
        "surrogate_sd_of_log_likelihood": float(np.std(own - full)),
        "seconds": dict(zip(("surrogate", "nuts", "fits"), np.round(np.diff(clock), 1).tolist())),
        "pixels": len(flux),
        "fits_diverged": int(diverged.sum()),
        "divergences": int(result.stats["diverging"].sum()),
    }


@eqx.filter_jit
def log_likelihoods(star, positions, fluxes):
    """Log likelihoods `(k,)` of the surrogate at positions `(k, n)`, and of exact fluxes `(k, n_pix)` there."""
    of = lambda f: star.continuum.log_likelihood(f, star.flux, star.ivar, star.ivar)[0]
    return jax.lax.map(lambda z: of(star.local(z)), positions), jax.lax.map(of, fluxes)


def summary(rows):
    """Per label: NUTS and scatter over the bound, for labels far from the domain's edge and for all."""
    out = {}
    for name in rows[0]["nuts_over_bound"]:
        inside = np.array([r["edge_in_bounds"].get(name, np.inf) > NEAR for r in rows])
        ratio = np.array([r["nuts_over_bound"][name] for r in rows])
        scatter = np.array([r["scatter_over_bound"][name] for r in rows])
        bias = np.array([r["bias_in_bounds"][name] for r in rows])
        known = np.isfinite(scatter)
        scatter, bias = scatter[known], bias[known]
        at = lambda x: (
            {"median": float(np.median(x)), "low": float(x.min()), "high": float(x.max())} if len(x) else None
        )
        out[name] = {
            "stars": len(rows),
            "inside": int(inside.sum()),
            "nuts": at(ratio[inside]),
            "nuts_all": at(ratio),
            "nuts_within_5_percent": float((np.abs(ratio[inside] - 1) < 0.05).mean()) if inside.any() else None,
            "scatter": at(scatter),
            "scatter_chi2": float((((scatter - 1) * np.sqrt(2 * REALISATIONS - 2)) ** 2).mean()),
            "bias_chi2": float((bias**2 * REALISATIONS).mean()),
        }
    return out


def markdown(facts, table, each):
    lines = [
        "# Posteriors and fits against the Cramér–Rao bound",
        "",
        f"Emulator {facts['emulator_hash']}.",
        "",
        f"{facts['stars']} mock stars, S/N {facts['snr']:g} per pixel, R = 20,000, 5101–5299 Å, {facts['pixels']} pixels; written by",
        "`tests/benchmarks/bounds_truth.py`. NUTS: standard deviation on spectra without noise over the marginal bound, for labels",
        f"more than {NEAR:g} bounds from the edge of the domain (median, lowest–highest; Monte Carlo error "
        f"{facts['mc_error']:.3f} if all draws were independent). Scatter:",
        f"of fits to {REALISATIONS} noise realisations over the bound; χ² per star of scatter and of mean bias is 1 if only Monte Carlo",
        f"error separates them. Of all fits {facts['fits_diverged']} diverged and are left out.",
        "",
        "| label | far from edges | NUTS / bound | within 5 % | all stars | scatter / bound | χ² scatter | χ² bias |",
        "|---|---|---|---|---|---|---|---|",
    ]
    text = lambda x: "" if x is None else f"{x['median']:.3f} ({x['low']:.3f}–{x['high']:.3f})"
    for name, t in table.items():
        within = "" if t["nuts_within_5_percent"] is None else f"{100 * t['nuts_within_5_percent']:.0f} %"
        lines.append(
            f"| {name} | {t['inside']}/{t['stars']} | {text(t['nuts'])} | {within} | {text(t['nuts_all'])} | "
            f"{text(t['scatter'])} | {t['scatter_chi2']:.2f} | {t['bias_chi2']:.2f} |"
        )
    clean = [r for r in each if not r["divergences"]]
    ratios = np.array(
        [x for r in clean for n, x in r["nuts_over_bound"].items() if r["edge_in_bounds"].get(n, np.inf) > NEAR]
    )
    lines += ["", f"NUTS had divergences in {len(each) - len(clean)} stars ({sum(r['divergences'] for r in each)} of "
              f"{len(each) * facts['draws']} draws), where the posterior of a label reaches the soft wall around the domain: their",
              f"widths are not to be trusted. In the other {len(clean)} stars {100 * (np.abs(ratios - 1) < 0.05).mean():.1f} % of "
              f"{len(ratios)} ratios lie within 5 % of 1, median {np.median(ratios):.3f}.",
              "Fits that diverged: " + (", ".join(f"{r['fits_diverged']} (star {i})" for i, r in enumerate(each) if r["fits_diverged"])
                                        or "none") + "; leaving them out narrows that star's scatter."]  # fmt: skip
    return "\n".join(lines) + "\n"


def plot(rows, path):
    from emuinfer.plotting.figure import label_text, new_figure, write_figure

    names = list(rows[0]["nuts_over_bound"])
    figure = new_figure(11, 4.2)
    axis = figure.add_axes((0.07, 0.2, 0.92, 0.72))
    axis.axhspan(0.95, 1.05, color="0.92", lw=0, label="5 %")
    rng = np.random.default_rng(0)
    for i, name in enumerate(names):
        far = np.array([r["edge_in_bounds"].get(name, np.inf) > NEAR for r in rows])
        ratio = np.array([r["nuts_over_bound"][name] for r in rows])
        scatter = np.array([r["scatter_over_bound"][name] for r in rows])
        x = i + rng.uniform(-0.12, 0.12, len(rows))
        axis.plot(x[far] - 0.18, ratio[far], "o", ms=3, color="#08519c", label="NUTS" if i == 0 else None)
        axis.plot(
            x[~far] - 0.18,
            ratio[~far],
            "x",
            ms=4,
            color="#d1495b",
            label="NUTS, edge of the domain near" if i == 1 else None,
        )
        axis.plot(
            x + 0.18, scatter, ".", ms=3, color="0.6", label=f"scatter of {REALISATIONS} fits" if i == 0 else None
        )
    axis.axhline(1, color="k", lw=0.8)
    axis.set_xticks(range(len(names)), [label_text(n) for n in names], rotation=35, ha="right")
    axis.set_ylabel("standard deviation / bound")
    axis.set_ylim(0.7, 1.3)
    axis.legend(ncols=4, fontsize=8, loc="lower left")
    write_figure(figure, path)


def write(emulator, rows, arguments, seconds):
    facts = {
        "emulator_hash": ei.emulators.emulator_hash(emulator),
        "stars": len(rows),
        "snr": arguments.snr,
        "draws": 4 * arguments.draws,
        "mc_error": 1 / np.sqrt(2 * 4 * arguments.draws),
        "pixels": rows[0]["pixels"],
        "fits_diverged": sum(r["fits_diverged"] for r in rows),
        "seconds": round(seconds),
    }
    table = summary(rows)
    folder = arguments.results
    folder.mkdir(exist_ok=True)
    (folder / "bounds_truth.json").write_text(json.dumps({**facts, "summary": table, "each": rows}, indent=1))
    (folder / "bounds_truth.md").write_text(markdown(facts, table, rows))
    plot(rows, folder / "bounds_truth.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stars", type=int, default=50)
    parser.add_argument("--snr", type=float, default=100.0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--draws", type=int, default=1000)
    arguments = parser.parse_args()
    emulator = ei.load_emulator("optical-fgk")
    density, rows, begin = make_density(emulator.label_space), [], time.perf_counter()
    for i, labels in enumerate(stars(emulator.label_space, arguments.stars)):
        rows.append(run_star(emulator, labels, arguments.snr, density, i, arguments.draws))
        worst = max(rows[-1]["nuts_over_bound"].items(), key=lambda p: abs(np.log(p[1])))
        print(
            f"{i}: {time.perf_counter() - begin:.0f} s {rows[-1]['seconds']}, worst {worst[0]} {worst[1]:.3f}, "
            f"surrogate {rows[-1]['surrogate_sd_of_log_likelihood']:.3f}",
            flush=True,
        )
        write(
            emulator, rows, arguments, time.perf_counter() - begin
        )  # after each star: a killed run leaves what it has
    print((arguments.results / "bounds_truth.md").read_text())


if __name__ == "__main__":
    main()
