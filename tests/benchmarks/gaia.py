"""What Gaia's parallax and colour do to fits of 200 Å: `python -m tests.benchmarks.gaia`; needs `../shared`, writes `results/gaia.json`.

Real stars of known gravity, each fitted without and with what is known of its parallax and magnitude (Gaia DR3 or Hipparcos as in the
table of the Gaia FGK benchmark stars v3, Soubiran et al. 2024, A&A 682, A145), and the Cramér–Rao bounds of both, at the table's labels.
Procyon is too bright for Gaia: its G is made from Hp with the difference of the table's other stars of its temperature. The Sun stands
at 10 pc, with M_G = 4.67 and BP − RP = 0.82 (Casagrande & VandenBerg 2018, MNRAS 479, L102). Finished fits are kept in `--folder`.

Before them, without spectra: log g by parallax and magnitude, at the table's Teff and [Fe/H], of all of its stars that Gaia knows well.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import emuinfer as ei
from emuinfer.files import use_compilation_cache
from emuinfer.likelihoods.gaia import GaiaLikelihood, read_gaia
from emuinfer.posteriors import draws_of
from tests.conftest import SHARED

RESULTS = Path(__file__).parent / "results"
TABLE = SHARED / "reference" / "gaia_fgk_benchmark_v3_lite.fits"
SHOWN = ("teff", "logg", "fe_h", "vmic")
NEARBY_A_K = 0.005  # mag; the table's stars are near
# file, resolving power, S/N; literature of Teff, log g, [Fe/H]
STARS = {
    "Sun": ("sun_uves.fits", 110_000, 100, (5772, 4.438, 0.0)),
    "Procyon": ("procyon_harps.fits", 115_000, 300, (6582, 3.98, -0.02)),
    "HD 122563": ("hd122563_mike.fits", 40_000, 100, (4642, 1.32, -2.67)),
}
COLUMNS = (
    "parallax",
    "parallax_error",
    "phot_g_mean_mag",
    "phot_bp_mean_mag",
    "phot_rp_mean_mag",
    "ruwe",
    "ag_gspphot",
)


def table():
    from astropy.table import Table

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Table.read(TABLE)


def gaia_data() -> dict:
    """For each star the data that are added: names to mappings."""
    rows = table()
    name = np.array([str(n).strip() for n in rows["hd"]])
    number = lambda column: np.ma.filled(np.ma.asarray(rows[column]).astype(float), np.nan)
    giant = {c: float(rows[c][name == "HD122563"][0]) for c in COLUMNS}
    i = int(np.flatnonzero(name == "HD61421")[0])
    alike = (np.abs(number("teff") - 6582) < 300) & (number("logg") > 3.5) & np.isfinite(number("phot_g_mean_mag"))
    difference = (number("phot_g_mean_mag") - number("hp_mag"))[alike]
    procyon = {
        "parallax": float(rows["parallax_hip"][i]),
        "parallax_error": float(rows["parallax_error__hip"][i]),
        "phot_g_mean_mag": float(rows["hp_mag"][i] + np.median(difference)),
        "phot_g_mean_mag_error": float(np.std(difference)),
        "a_v": 0.0,
        "a_v_error": 0.01,
    }
    sun = {
        "parallax": 100.0,
        "parallax_error": 0.05,
        "phot_g_mean_mag": 4.67,
        "bp_rp": 0.82,
        "a_v": 0.0,
        "a_v_error": 0.01,
    }
    return {
        "Sun": {"Gaia": sun},
        "Procyon": {"Hipparcos": procyon},
        "HD 122563": {"Gaia": giant, "Gaia, A_V = 0.01 ± 0.03": {**giant, "a_v": 0.01, "a_v_error": 0.03}},
    }


def gravities() -> dict[str, np.ndarray]:
    """Of the table's stars `logg` and `e_logg` as it has them, `fe_h`, and what parallax and magnitude say, `found` and `sd`."""
    rows = table()
    number = lambda column: np.ma.filled(np.ma.asarray(rows[column]).astype(float), np.nan)
    numbers = {n: number(n) for n in ("teff", "e_teff", "logg", "e_logg", "fe_h", "ruwe", *COLUMNS[:3])}
    use = (numbers["teff"] > 4000) & (numbers["teff"] < 7000) & (numbers["ruwe"] < 1.4)
    use &= np.isfinite([numbers[n] for n in COLUMNS[:3]]).all(0)
    star = {n: x[use] for n, x in numbers.items()}
    grid = np.linspace(0.2, 5.2, 501)

    @jax.jit
    def curve(one, teff, fe_h):
        at = lambda logg: {"teff": teff, "logg": logg, "fe_h": fe_h, "a_k": jnp.float32(NEARBY_A_K)}
        return jax.vmap(lambda logg: one.log_likelihood(at(logg)))(jnp.asarray(grid, jnp.float32))

    found = []
    for i in range(use.sum()):
        one = GaiaLikelihood.of(read_gaia({n: float(star[n][i]) for n in COLUMNS[:3]})).luminosity
        log = np.asarray(curve(one, jnp.float32(star["teff"][i]), jnp.float32(star["fe_h"][i])), float)
        weight = np.exp(log - log.max()) / np.exp(log - log.max()).sum()
        mean = weight @ grid
        found.append((mean, np.sqrt(weight @ (grid - mean) ** 2)))
    mean, sd = np.array(found).T
    return {**star, "found": mean, "sd": sd}


def compared(star) -> dict:
    """Offsets and scatter of `gravities` by kind of star."""
    logg, fe_h = star["logg"], star["fe_h"]
    kinds = {
        "dwarfs": logg > 3.8,
        "subgiants": (logg > 3.2) & (logg <= 3.8),
        "giants": (logg <= 3.2) & (fe_h > -1),
        "metal-poor giants": (logg <= 3.2) & (fe_h <= -1),
    }
    total = np.sqrt(star["sd"] ** 2 + star["e_logg"] ** 2 + (4 * star["e_teff"] / star["teff"] / np.log(10)) ** 2)
    out = {}
    for name, these in kinds.items():
        offset = (star["found"] - logg)[these]
        middle = float(np.median(offset))
        out[name] = {
            "n": int(these.sum()),
            "median offset": middle,
            "scatter": float(1.4826 * np.median(np.abs(offset - middle))),
            "stated": float(np.median(star["sd"][these])),
            "within 2 sd": float((np.abs(offset / total[these]) < 2).mean()),
        }
    return out


def fit(star, gaia) -> dict:
    file, resolution, snr, known = STARS[star]
    observation = ei.Observation.read(SHARED / "observed" / file, resolution=resolution, snr=snr, medium="air")
    model = ei.StellarModel(ei.load_emulator("optical-fgk"), observation, gaia=gaia, progress=False)
    begin = time.perf_counter()
    found = ei.sample(model, seed=0, progress=False, warmup=250, draws=400, predictive=0, pointwise=0)
    draws = {n: draws_of(found, n).ravel() for n in (*SHOWN, "a_k") if n in model.names}
    at = {n: float(draws_of(found, n).mean()) for n in model.names}
    bounds = ei.cramer_rao(model, at | dict(zip(SHOWN, known)), model_error=True)
    return {
        "seconds": time.perf_counter() - begin,
        "mean": {n: float(x.mean()) for n, x in draws.items()},
        "sd": {n: float(x.std()) for n, x in draws.items()},
        "correlation of teff and logg": float(np.corrcoef(draws["teff"], draws["logg"])[0, 1]),
        "bound": {n: bounds.marginal[n] for n in draws},
        "literature": dict(zip(SHOWN, known)),
        **{k: found.attrs[k] for k in ("k_hat", "verification", "goodness")},
        "statistics": json.loads(found.attrs["goodness_statistics"]),
        "notes": list(model.notes),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("gaia-fits"), help="fits that are done are kept here")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    use_compilation_cache()
    found: dict = {}
    for star, known in gaia_data().items():
        for k, (name, gaia) in enumerate({"spectrum alone": None, **known}.items()):
            path = folder / f"{star.replace(' ', '')}-{k}.json"
            if not path.exists():
                path.write_text(json.dumps(fit(star, gaia)))
            found.setdefault(star, {})[name] = row = json.loads(path.read_text())
            shown = {n: f"{row['mean'][n]:.4g} ± {row['sd'][n]:.2g} (bound {row['bound'][n]:.2g})" for n in row["mean"]}
            print(star, name, shown, row["verification"], row["goodness"], flush=True)
    result = {"gravities": compared(gravities()), "stars": found}
    (RESULTS / "gaia.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
