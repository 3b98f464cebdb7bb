"""What a Gaia XP spectrum and a parallax add to 200 Å. `python -m tests.benchmarks.joint_xp`; writes `results/joint_xp.json`.

A star with the labels of HD 41248, a spectrum of `optical-fgk` at S/N 50, an XP spectrum with J − K, and a parallax with an error of 10 %.
First the Cramér–Rao bounds at several resolving powers, with all errors that a fit assumes (lines, emulators, scales of the labels,
mass, bolometric correction). Then, with `--mocks N`, fits of N mocks, drawn with all these errors: standard deviations and coverage.
Finished mocks are kept in `--folder`, so that a run goes on where it was stopped.

`--emulator`: name or path of a network (`stars-xp`), or `kit`: a quadratic in the labels fitted to 4,100 dwarfs of the training split of
`../shared/data/foundation`, whose scatter holds the noise of their labels, and so tells less than a network that takes it out.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

import emuinfer as ei
from emuinfer.errors import SamplingError
from emuinfer.forecast import instrument_model
from emuinfer.likelihoods.luminosity import LuminosityLikelihood
from emuinfer.networks import measure_correlation
from emuinfer.posteriors import draws_of
from emuinfer.tokens import stars_tokens

RESULTS = Path(__file__).parent / "results"
KIT = Path(__file__).resolve().parents[3] / "shared" / "data" / "foundation" / "stars_xp_apogee.npz"
STAR = {"teff": 5713.0, "logg": 4.49, "fe_h": -0.37}  # HD 41248, as in recipes/line_errors.py
LABELS, A_K, RV, VBROAD = ("teff", "logg", "fe_h", "alpha_m", "a_k"), 0.02, 0.0, 3.0
RESOLUTIONS = (3_000, 5_000, 10_000, 20_000, 47_000, 140_000)
SNR, FRACTION, PIXELS = 50, 0.10, 3.0
SHOWN = ("teff", "logg", "fe_h")
# Relative errors of 10 nm bins at G = 12 to 13, those of the archive's 2 nm samples, which are correlated over a bin.
ERRORS = ((400.0, 1 / 17), (450.0, 1 / 60), (600.0, 1 / 177), (980.0, 1 / 150))


class Quadratic(eqx.Module):
    """Means quadratic in the labels, with the covariance of the residuals: what `XPModel` takes, without a network."""

    coefficients: jax.Array
    sd: jax.Array
    factors: jax.Array
    centre: jax.Array
    scale: jax.Array
    kinds: tuple = eqx.field(static=True)
    lower: tuple = eqx.field(static=True)
    upper: tuple = eqx.field(static=True)
    labels: tuple = eqx.field(static=True, default=LABELS)

    def predict(self, labels):
        return _terms((labels - self.centre) / self.scale, jnp) @ self.coefficients, self.sd

    @classmethod
    def of_kit(cls, rank=10):
        """Fitted to dwarfs of the kit's training split."""
        kit = np.load(KIT)
        names = kit["label_names"].tolist()
        of = lambda name: kit["labels"][:, names.index(name)].astype(float)
        x, colour = np.stack([of(n) for n in LABELS], 1), of("j") - of("k")
        lower, upper = (5000.0, 3.6, -1.0, -0.15, -0.05), (6400.0, 4.8, 0.5, 0.4, 0.6)
        with np.errstate(invalid="ignore"):
            use = (kit["split"] == 0) & (of("apogee_snr") > 30) & np.isfinite(colour)
            use &= ((x > lower) & (x < upper)).all(1)
        flux = (kit["coef_q"][use] * kit["coef_scale"]).astype(np.float32) @ kit["basis"].T
        nm = kit["wave_nm"][:340].reshape(-1, 5).mean(1)
        kept = (nm > 395) & (nm < 990)
        y = np.log(np.clip(flux[:, :340].reshape(len(flux), -1, 5).mean(2)[:, kept], 1e-6, None))
        y, x = np.c_[y - y.mean(1, keepdims=True), colour[use]], x[use]
        centre, scale, good = x.mean(0), x.std(0), np.ones(len(x), bool)
        terms = _terms((x - centre) / scale, np)
        for _ in range(4):
            coefficients = np.linalg.lstsq(terms[good], y[good], rcond=None)[0]
            r = y - terms @ coefficients
            good = (np.abs(r) < 6 * 1.4826 * np.median(np.abs(r[good]), 0)).all(1)
        covariance = np.cov(r[good].T)
        values, vectors = np.linalg.eigh(covariance)
        factors = vectors[:, -rank:] * np.sqrt(values[-rank:])
        sd = np.sqrt(np.maximum(np.diag(covariance - factors @ factors.T), 1e-6))
        arrays = (jnp.asarray(a, jnp.float32) for a in (coefficients, sd, factors, centre, scale))
        return cls(*arrays, (*(f"xp_bin_{w:.0f}" for w in nm[kept]), "j_k"), lower, upper)


def _terms(u, xp):
    i, j = np.triu_indices(len(LABELS))
    return xp.concatenate([xp.ones_like(u[..., :1]), u, u[..., i] * u[..., j]], -1)


def token_emulator(name):
    """What `--emulator` names."""
    if name == "kit":
        return Quadratic.of_kit()
    network = ei.load_network(name)
    if "correlation" not in network.card:
        stars = stars_tokens(dict(np.load(KIT)), network.vocabulary)
        rows = np.random.default_rng(0).permutation(np.flatnonzero((stars.split == 1) & stars.usable))[:700]
        found = measure_correlation(network, stars.tokens[rows])
        network = dataclasses.replace(network, card={**network.card, "correlation": found})
    bins = [kind.name for kind in network.vocabulary if kind.group == "xp_bins" and 3950 < kind.wavelength < 9900]
    return network.as_emulator(condition=list(LABELS), observe=[*bins, "j_k"])


def errors_of(kinds) -> np.ndarray:
    """Standard deviations of the transformed numbers, `(m,)`."""
    nm, relative = zip(*ERRORS)
    of = lambda kind: np.exp(np.interp(float(kind[7:]), nm, np.log(relative))) if kind.startswith("xp_bin") else 0.03
    return np.array([of(k) for k in kinds])


def xp_data(emulator, labels, rng=None) -> dict:
    """`{kind: (value, error)}` of a star, without noise, or with all of it where there is a generator of random numbers."""
    mean, sd = (np.asarray(a, float) for a in emulator.predict(jnp.asarray([labels[n] for n in LABELS], jnp.float32)))
    error = errors_of(emulator.kinds)
    if rng is not None:
        mean = mean + np.hypot(sd, error) * rng.standard_normal(len(mean))
        mean += np.asarray(emulator.factors, float) @ rng.standard_normal(np.shape(emulator.factors)[1])
    log = np.array([k.startswith("xp_bin") for k in emulator.kinds])
    value = np.where(log, np.exp(np.where(log, mean, 0.0)), mean)
    return {k: (v, s * v if flux else s) for k, v, s, flux in zip(emulator.kinds, value, error, log)}


def magnitude_at(distance, labels, rng=None) -> tuple[float, float]:
    """G and its error of a star at `distance` pc, with the errors of mass, correction and extinction where there is a generator."""
    one = LuminosityLikelihood.of(1.0, 1.0, 0.0, 0.003)
    m, variance = (float(x) for x in one.absolute({n: jnp.float32(v) for n, v in labels.items()}))
    noise = 0.0 if rng is None else np.sqrt(variance) * rng.standard_normal()
    return m + 5 * np.log10(distance) - 5 + noise, 0.003


def spectrum_model(emulator, resolution, star):
    lo, hi = emulator.wavelength_range
    return instrument_model(
        emulator,
        wavelength_range=(lo + 3, hi - 3),
        resolution=resolution,
        snr=SNR,
        pixels_per_fwhm=PIXELS,
        labels=star,
        vbroad=VBROAD,
        progress=False,
    )


def models_of(stellar, tokens, data, magnitude, parallax) -> dict:
    """The same star with ever more data."""
    return {
        "200 Å": ei.JointModel([stellar]),
        "200 Å + parallax": ei.JointModel([stellar, ei.ParallaxModel(parallax, magnitude)]),
        "200 Å + XP": ei.JointModel([stellar, ei.XPModel(tokens, data)]),
        "200 Å + XP + parallax": ei.JointModel(
            [stellar, ei.XPModel(tokens, {**data, "phot_g_mean_mag": magnitude}, parallax=parallax)]
        ),
    }


def bounds(emulator, tokens, star) -> list[dict]:
    known = {**star, "alpha_m": 0.0, "a_k": A_K}
    data, magnitude, rows = xp_data(tokens, known), magnitude_at(400.0, known), []
    for resolution in RESOLUTIONS:
        stellar = spectrum_model(emulator, resolution, star)
        for errors in (True, False):
            row = {"resolution": resolution, "model_error": errors, "pixels": len(stellar.wavelength)}
            models = models_of(stellar, tokens, data, magnitude, (2.5, 2.5 * FRACTION))
            whole, dust = {**data, "phot_g_mean_mag": magnitude}, {"a_k": dist.Normal(A_K, 0.01)}
            better = (
                ei.XPModel(tokens, whole, parallax=(2.5, 0.025)),
                ei.XPModel(tokens, whole, parallax=(2.5, 0.025), priors=dust),
            )
            models["200 Å + XP + parallax of 1 %"] = ei.JointModel([stellar, better[0]])
            models["the same + dust map to 0.01"] = ei.JointModel([stellar, better[1]])
            for name, model in models.items():
                at = {**star, "a_k": A_K} if "a_k" in model.all_priors else star
                found = ei.cramer_rao(model, at, rv=RV, vbroad=VBROAD, model_error=errors)
                row[name] = {n: found.marginal[n] for n in SHOWN}
            row["gain in log g"] = row["200 Å"]["logg"] / row["200 Å + XP + parallax"]["logg"]
            rows.append(row)
            print(json.dumps(row, ensure_ascii=False), flush=True)
    return rows


def mock(emulator, tokens, star, resolution, seed):
    """The models of one star drawn with all errors that the likelihoods assume, and its true values."""
    rng = np.random.default_rng([20261127, seed])
    offsets = {"teff": 50.0, "logg": 0.05, "fe_h": 0.05, "alpha_m": 0.05}  # of the scales of labels
    known = {**star, "alpha_m": 0.0}
    known = {n: known[n] + offsets[n] * rng.standard_normal() for n in offsets} | {"a_k": A_K}
    clean = spectrum_model(emulator, resolution, star)
    values = {
        **dict.fromkeys(emulator.label_space.names, 0.0),
        "vmic": 1.0,
        **star,
        "rv": RV,
        "vbroad": VBROAD,
        "log10_jitter": -5.0,
    }
    values = {n: jnp.float32(v) for n, v in values.items()}
    noise = eqx.filter_jit(lambda one, v: one.with_model_variance(v).noise.total(v))(clean.likelihood, values)
    sigma = np.sqrt(np.asarray(noise, float)) * clean.scale
    observation, flux = clean.observation, np.array(clean.observation.flux)
    flux[clean.pixels] += sigma * rng.standard_normal(len(sigma))
    observation = ei.Observation(
        observation.wavelength,
        flux,
        1.0 / SNR,
        resolution=resolution,
        medium=observation.medium,
        name="mock",
        clip=None,
    )
    stellar = ei.StellarModel(emulator, observation, rv_range=(RV - 30, RV + 30), robust=False, progress=False)
    distance = 400.0
    parallax = 1e3 / distance
    sd = FRACTION * parallax
    magnitude = magnitude_at(distance, {**star, "a_k": A_K}, rng)
    models = models_of(
        stellar, tokens, xp_data(tokens, known, rng), magnitude, (parallax + sd * rng.standard_normal(), sd)
    )
    return models, {**star, "a_k": A_K}


def fitted(model, truth, seed) -> dict:
    """Means, standard deviations and ranks of the true values of one fit."""
    start = {
        n: truth[n] if n in truth else {"vmic": 1.0, "vbroad": VBROAD, "log10_jitter_1": -2.5}.get(n, 0.0)
        for n in model.names
    }
    found = ei.sample(
        model,
        start=start,
        seed=seed,
        chains=2,
        warmup=200,
        draws=400,
        verify=60,
        predictive=0,
        pointwise=0,
        progress=False,
    )
    draws = {k: np.asarray(draws_of(found, k)).ravel() for k in SHOWN}
    return {k: {"mean": x.mean(), "sd": x.std(), "rank": float((x < truth[k]).mean())} for k, x in draws.items()} | {
        "k_hat": found.attrs["k_hat"],
        "verification": found.attrs["verification"],
    }


def fit_mocks(emulator, tokens, star, resolution, n, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(n):
        path = folder / f"mock_{resolution}_{seed:03d}.json"
        if path.exists():
            continue
        models, truth = mock(emulator, tokens, star, resolution, seed)
        try:
            row = {name: fitted(model, truth, seed) for name, model in models.items()}
        except SamplingError as error:
            path.write_text(json.dumps({"failed": str(error)}))
            print(seed, error, flush=True)
            continue
        path.write_text(json.dumps(row, ensure_ascii=False))
        print(
            seed,
            json.dumps({k: {n: round(v[n]["sd"], 3) for n in SHOWN} for k, v in row.items()}, ensure_ascii=False),
            flush=True,
        )


def coverage(folder, resolution) -> dict:
    """Over the mocks that there are: median standard deviations, shares of truths within 68 and 95 %, mean of the offsets in sigma."""
    all_rows = [json.loads(p.read_text()) for p in sorted(folder.glob(f"mock_{resolution}_*.json"))]
    rows = [row for row in all_rows if "failed" not in row]
    out: dict = {"n": len(rows), "failed": len(all_rows) - len(rows), "resolution": resolution}
    for name in rows[0] if rows else ():
        for label in SHOWN:
            rank = np.array([r[name][label]["rank"] for r in rows])
            inside = lambda p, rank=rank: float((np.abs(rank - 0.5) < p / 2).mean())
            sd = float(np.median([r[name][label]["sd"] for r in rows]))
            out.setdefault(name, {})[label] = {"sd": sd, "68": inside(0.6827), "95": inside(0.9545)}
        out[name]["verified"] = float(np.mean([r[name]["verification"] == "ok" for r in rows]))
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--emulator", default="stars-xp")
    parser.add_argument("--mocks", type=int, default=0)
    parser.add_argument("--resolution", type=int, default=5_000, help="of the mocks")
    parser.add_argument("--folder", type=Path, default=Path("joint-xp-mocks"))
    given = parser.parse_args()
    emulator, tokens = ei.load_emulator("optical-fgk"), token_emulator(given.emulator)
    star, found = star_of(emulator), {}
    if given.mocks:
        fit_mocks(emulator, tokens, star, given.resolution, given.mocks, given.folder)
        found[f"mocks_{given.resolution}"] = coverage(given.folder, given.resolution)
    else:
        found["bounds"] = bounds(emulator, tokens, star)
    path = RESULTS / "joint_xp.json"
    saved = json.loads(path.read_text()) if path.exists() else {}
    saved.setdefault(Path(given.emulator).name, {}).update(found)
    path.write_text(json.dumps(saved, indent=1, ensure_ascii=False) + "\n")


def star_of(emulator) -> dict:
    """All labels of the star."""
    return {**dict.fromkeys(emulator.label_space.names, 0.0), "vmic": 1.0, **STAR}


if __name__ == "__main__":
    main()
