"""Does `refine` give the posterior, and how fast: `python -m tests.benchmarks.refine` from the repository's root.

Mock stars are drawn from a `TokenEmulator` (mean, standard deviation and factors of what is observed, given labels), whose
likelihood is that of the model. For each star: ranks of the true labels among the draws (simulation-based calibration; Talts
et al. 2018, arXiv:1804.06788), whether weights alone sufficed, seconds; and the same with the guide shifted by 5 of its standard
deviations in every label, which must be recovered: the mean within 0.3 standard deviations of that with the right guide, the
standard deviations within 25 %.

`--network stars-xp` takes emulator and guide of a network, and the labels of the kit's validation stars as the prior. Without it
there is a synthetic generator of 10 MFLOP a call, and as guide a regression on 4,000 of its mocks with
a few Gauss-Newton steps, a Gaussian that is a third too wide.

With `--real`, too, real stars of the kit's validation split: the XP bins of each, refined with the likelihood of `XPModel`. The
departures of APOGEE's labels in units of the stated errors, and these errors beside those of the network's own answers, go to
`refine_real.json`.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.stats import kstest

import emuinfer as ei
from emuinfer.files import use_compilation_cache
from emuinfer.inference.proposals import fit_mixture, scattered
from emuinfer.posteriors import draws_of
from emuinfer.tokens import TokenSet, stars_tokens
from tests.conftest import SHARED

RESULTS = Path(__file__).parent / "results"
ERROR = 0.01  # of each observed value, in the transformed space
LABELS = ("teff", "logg", "fe_h", "alpha_m", "a_k")
A_K_ERROR = 0.006  # mag, of APOGEE's A_K: as the calibration in the card of stars-xp found it


class Synthetic(eqx.Module):
    """A `TokenEmulator`: a random network of 10 MFLOP from five labels to 68 values, with three factors."""

    labels: tuple[str, ...] = eqx.field(static=True)
    kinds: tuple[str, ...] = eqx.field(static=True)
    lower: jax.Array
    upper: jax.Array
    layers: tuple
    factors: jax.Array

    def predict(self, labels):
        """Mean and standard deviation `(68,)`."""
        x = 2 * (labels - self.lower) / (self.upper - self.lower) - 1
        for layer in self.layers[:-1]:
            x = jnp.tanh(layer @ x)
        return self.layers[-1] @ x, jnp.full(len(self.kinds), 0.02)


def synthetic(width=1024, hidden=6):
    rng = np.random.default_rng(5)
    sizes = [5, *[width] * hidden, 68]
    gains = [0.5, *[1.0] * (hidden - 1), 1.0]
    layers = tuple(
        jnp.asarray(g * rng.normal(size=(b, a)) / np.sqrt(a), jnp.float32) for a, b, g in zip(sizes, sizes[1:], gains)
    )
    bounds = np.array([[3500.0, 0.0, -2.0, -0.2, 0.0], [7500.0, 5.0, 0.5, 0.5, 0.5]], np.float32)
    factors = jnp.asarray(0.01 * rng.normal(size=(68, 3)), jnp.float32)
    kinds = tuple(f"xp_bin_{k}" for k in range(68))
    return Synthetic(LABELS, kinds, jnp.asarray(bounds[0]), jnp.asarray(bounds[1]), layers, factors)


def observed(values, error, emulator, prior):
    """The model: `prior` of all labels as one site, and what is observed given them."""
    x = numpyro.sample("x", prior_of(prior))
    mean, sd = emulator.predict(x)
    factors = jnp.asarray(emulator.factors)
    factors = jnp.concatenate([factors, jnp.zeros((len(factors), 1))], 1)  # there may be none
    numpyro.sample("values", dist.LowRankMultivariateNormal(mean, factors, sd**2 + error**2), obs=values)


def prior_of(numbers):
    """Flat between bounds, or a mixture of Gaussians."""
    if len(numbers) == 2:
        return dist.Uniform(*numbers).to_event(1)
    weights, means, roots = numbers
    return dist.MixtureSameFamily(dist.Categorical(weights), dist.MultivariateNormal(means, scale_tril=roots))


@eqx.filter_jit
def mock(key, emulator, prior):
    """True labels, values and their errors."""
    keys = jax.random.split(key, 4)
    x = prior_of(prior).sample(keys[0])
    mean, sd = emulator.predict(x)
    normal = lambda key, like: jax.random.normal(key, like.shape)
    error = jnp.full_like(mean, ERROR)
    eta = jax.random.normal(keys[2], emulator.factors.shape[1:])
    return x, mean + sd * normal(keys[1], mean) + emulator.factors @ eta + error * normal(keys[3], mean), error


class Gaussian:
    """A guide: a Gaussian in standardised labels."""

    def __init__(self, names, mean, root):
        self.names, self.mean, self.root = names, jnp.asarray(mean, jnp.float32), jnp.asarray(root, jnp.float32)

    def sample(self, key, n):
        return self.mean + jax.random.normal(key, (n, len(self.mean))) @ self.root.T

    def log_prob(self, values):
        return dist.MultivariateNormal(self.mean, scale_tril=self.root).log_prob(jnp.asarray(values))


class Shifted:
    """A guide moved by `away`."""

    def __init__(self, guide, away):
        self.guide, self.names, self.away = guide, guide.names, jnp.asarray(away, jnp.float32)

    def sample(self, key, n):
        return self.guide.sample(key, n) + self.away

    def log_prob(self, values):
        return self.guide.log_prob(jnp.asarray(values) - self.away)


def regression(emulator, prior, n=4000):
    """`guide(values, error)` that starts from a quadratic regression on the first 12 principal components of mocks."""
    x, y, _ = (
        np.asarray(a, float)
        for a in jax.vmap(lambda k: mock(k, emulator, prior))(jax.random.split(jax.random.key(1), n))
    )
    centre = y.mean(0)
    components = np.linalg.svd(y - centre, full_matrices=False)[2][:12]

    def features(y):
        p = (y - centre) @ components.T
        upper = np.triu_indices(p.shape[1])
        return np.concatenate([np.ones((len(p), 1)), p, (p[:, :, None] * p[:, None])[:, *upper]], 1)

    slope = np.linalg.lstsq(features(y), x, rcond=None)[0]

    def guide(values, error):
        first = (features(np.asarray(values, float)[None]) @ slope)[0]
        return Gaussian(emulator.labels, *polished(emulator, values, error, jnp.asarray(first, jnp.float32)))

    return guide


@eqx.filter_jit
def polished(emulator, values, error, x):
    """Mean and root of the covariance of a Gaussian near the posterior: a few Gauss-Newton steps, widened by a third."""
    width = emulator.upper - emulator.lower
    mean = lambda u: emulator.predict(emulator.lower + width * u)[0]
    sd = emulator.predict(x)[1]
    root = jnp.linalg.cholesky(emulator.factors @ emulator.factors.T + jnp.diag(sd**2 + error**2))
    white = lambda a: jax.scipy.linalg.solve_triangular(root, a, lower=True)
    prior = 12.0 * jnp.eye(len(x))

    def information(u):
        slope = white(jax.jacfwd(mean)(u))
        return slope, slope.T @ slope + prior

    def step(u, _):
        slope, matrix = information(u)
        move = jnp.linalg.solve(matrix, slope.T @ white(values - mean(u)) - prior @ (u - 0.5))
        return jnp.clip(u + jnp.clip(move, -0.2, 0.2), 0.01, 0.99), None

    u, _ = jax.lax.scan(step, jnp.clip((x - emulator.lower) / width, 0.01, 0.99), None, length=8)
    covariance = 1.33**2 * jnp.linalg.inv(information(u)[1])
    return emulator.lower + width * u, width[:, None] * jnp.linalg.cholesky(covariance)


def of_network(name):
    """Emulator, prior and `guide(values, error)` of a network."""
    network = ei.load_network(name)
    emulator = network.as_emulator(condition=list(LABELS), observe="xp_bins")
    columns = list(network.vocabulary.indices(emulator.kinds))

    def guide(values, error):
        # Bins are logarithms of the flux; users' units are the flux itself.
        tokens, errors = np.full((2, 1, len(network.vocabulary)), np.nan)
        tokens[0, columns] = np.exp(np.asarray(values, float))
        errors[0, columns] = tokens[0, columns] * np.asarray(error, float)
        return network.as_guide(TokenSet(network.vocabulary, tokens, errors), labels=list(LABELS))

    kit = np.load(SHARED / "foundation" / "stars_xp_apogee.npz")
    names = [str(n) for n in kit["label_names"]]
    rows = np.stack([kit["labels"][kit["split"] == 1, names.index(n)] for n in LABELS], -1).astype(float)
    lower, upper = np.asarray(emulator.lower), np.asarray(emulator.upper)
    rows = rows[np.isfinite(rows).all(1) & (rows > lower).all(1) & (rows < upper).all(1)]
    equal = np.full(len(rows), 1 / len(rows))
    fitted = fit_mixture(rows, equal, scattered(np.random.default_rng(0), rows, equal, 8))
    return emulator, tuple(jnp.asarray(a, jnp.float32) for a in (fitted.weights, fitted.means, fitted.roots)), guide


def spread(guide, key):
    """Standard deviations of a guide's draws."""
    return np.asarray(guide.sample(key, 512), float).std(0)


def one(guide, data, names, seed):
    """Draws `(n, d)`, attributes, and seconds of a star: by the clock, and of all processors together."""
    clock, processors = time.perf_counter(), time.process_time()
    rename = {n: f"x[{k}]" for k, n in enumerate(names)}
    posterior = ei.refine(guide, observed, data, seed=seed, rename=rename, draws=250)
    seconds = time.perf_counter() - clock, time.process_time() - processors
    x = draws_of(posterior, "x").reshape(-1, len(names))
    return x, {k: posterior.attrs[k] for k in ("method", "flag", "k_hat", "guide_k_hat", "guide_ess", "ess")}, seconds


def stars(emulator, prior, guide_of, n, shifts, seed):
    """A row of facts for each mock, one by one; the first `shifts` of them with a wrong guide, too."""
    for k in range(n):
        key = jax.random.fold_in(jax.random.key(seed), k)
        truth, values, error = mock(key, emulator, prior)
        guide = guide_of(values, error)
        data = values, error, emulator, prior
        x, facts, seconds = one(guide, data, emulator.labels, k)
        row = {"rank": (x < np.asarray(truth)).mean(0).tolist(), "seconds": seconds, **facts}
        if k < shifts:
            signs = np.random.default_rng([seed, k]).choice([-1, 1], len(emulator.labels))
            wrong, other, row["shifted_seconds"] = one(
                Shifted(guide, 5 * spread(guide, key) * signs), data, emulator.labels, k
            )
            sd = x.std(0)
            near = np.all(np.abs(wrong.mean(0) - x.mean(0)) < 0.3 * sd) and np.all(
                np.abs(np.log(wrong.std(0) / sd)) < 0.22
            )
            row |= {"shifted": other, "recovered": bool(near)}
        print(
            k,
            facts["method"],
            round(facts["guide_k_hat"], 2),
            row.get("recovered", ""),
            f"{seconds[0]:.2f} s",
            flush=True,
        )
        yield row


def summary(rows, labels):
    ranks = np.array([r["rank"] for r in rows])
    wrong = [r for r in rows if "shifted" in r]
    share = lambda test, rows=rows: float(np.mean([test(r) for r in rows])) if rows else None
    methods = lambda of, rows: {m: share(lambda r: of(r) == m, rows) for m in sorted({of(r) for r in rows})}
    median = lambda seconds: dict(zip(("clock", "processors"), np.median(seconds, 0).tolist())) if seconds else None
    return {
        "n": len(rows),
        "rank_p": {n: float(kstest(r, "uniform").pvalue) for n, r in zip(labels, ranks.T)},
        "by_weights_alone": share(lambda r: r["method"] == "importance"),
        "methods": methods(lambda r: r["method"], rows),
        "ok": share(lambda r: r["flag"] == "ok"),
        "median_seconds": median([r["seconds"] for r in rows[1:]]),
        "median_seconds_by_weights": median([r["seconds"] for r in rows[1:] if r["method"] == "importance"]),
        "shifted_n": len(wrong),
        "shifted_seen": share(lambda r: r["shifted"]["guide_k_hat"] > 0.7 or r["shifted"]["guide_ess"] < 200, wrong),
        "shifted_recovered": share(lambda r: r["recovered"], wrong),
        "shifted_methods": methods(lambda r: r["shifted"]["method"], wrong),
        "median_seconds_shifted": median([r["shifted_seconds"] for r in wrong[1:]]),
    }


def real(name, n, seed):
    """For each real star, `(departures, standard deviations, half widths of the network's answers)`, by label."""
    network = ei.load_network(name)
    v = network.vocabulary
    with np.load(SHARED / "foundation" / "stars_xp_apogee.npz") as kit:
        stars = stars_tokens(dict(kit), v)
    bins = [k.name for k in v if k.group == "xp_bins" and 3950 < k.wavelength < 9900]
    at, columns = v.indices(bins), v.indices(LABELS)
    emulator = network.as_emulator(condition=list(LABELS), observe=bins)
    whole = np.isfinite(stars.tokens.values[:, columns]).all(1) & (stars.tokens.values[:, at] > 0).all(1)
    for row in np.random.default_rng(seed).permutation(np.flatnonzero((stars.split == 1) & stars.usable & whole))[:n]:
        star = stars.tokens[[row]]
        model = ei.XPModel(emulator, dict(zip(bins, zip(star.values[0, at], star.errors[0, at]))))
        guide = network.as_guide(star.only(bins), labels=list(LABELS))
        posterior = ei.refine(guide, model, seed=seed, draws=250, mcmc=False)
        x = np.stack([draws_of(posterior, label).ravel() for label in LABELS], 1)
        error = np.where(np.isfinite(star.errors[0, columns]), star.errors[0, columns], A_K_ERROR)
        q = network.ask(star.only(bins), list(LABELS)).quantiles
        departure = (x.mean(0) - star.values[0, columns]) / np.hypot(x.std(0), error)
        print(posterior.attrs["method"], posterior.attrs["flag"], np.round(departure, 1), flush=True)
        yield departure, x.std(0), (q[0.84][0] - q[0.16][0]) / 2, posterior.attrs["flag"] == "ok"


def of_real(rows):
    """What `refine_real.json` says: robust standard deviations of the departures, medians of the errors."""
    departures, sd, own, ok = (np.array(part) for part in zip(*rows))
    robust = 1.4826 * np.median(np.abs(departures), 0)
    numbers = {"departure": robust, "sd": np.median(sd, 0), "sd_of_network": np.median(own, 0)}
    by_label = {k: dict(zip(LABELS, map(float, v))) for k, v in numbers.items()}
    return {"n": len(rows), "ok": float(ok.mean()), **by_label}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", help="name or path of a network; a synthetic generator by default")
    parser.add_argument("-n", type=int, default=200)
    parser.add_argument("--shifted", type=int, default=200, help="stars that are refined from a wrong guide, too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", action="store_true", help="real stars in place of mocks; needs --network")
    options = parser.parse_args()
    use_compilation_cache()
    facts = {"seed": options.seed, "machine": platform.machine(), "processors": os.cpu_count()}
    if options.real:
        found = facts | of_real(list(real(options.network, options.n, options.seed)))
        (RESULTS / "refine_real.json").write_text(json.dumps(found, indent=1) + "\n")
        return
    if options.network:
        emulator, prior, guide_of = of_network(options.network)
    else:
        emulator = synthetic()
        prior = emulator.lower, emulator.upper
        guide_of = regression(emulator, prior)
    name = "refine" if not options.network else f"refine_{Path(options.network).name}"
    rows = []
    for row in stars(emulator, prior, guide_of, options.n, options.shifted, options.seed):
        rows.append(row)
        if len(rows) % 20 == 0 or len(rows) == options.n:
            found = facts | summary(rows, emulator.labels)
            (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
