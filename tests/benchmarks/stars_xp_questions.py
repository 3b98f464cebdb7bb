"""The questions of `stars_xp`: each asks a network about stars of a split and scores the answers beside those of the controls."""

import json
import time

import numpy as np

from tests.benchmarks.stars_xp_kit import (
    A_K_PAIR,
    DRAWN,
    INPUTS,
    LABELS,
    RESULTS,
    THREE,
    curve_score,
    extinction_curve,
    log_scatter,
    robust_sd,
    scatter,
    subsets,
)

RESAMPLED = 1000
RANKS = tuple(i / 200 for i in range(1, 200))  # probabilities of quantiles; 0 to 199 of them are below a value
A_K_ERROR = 0.01  # mag, where the table has none: that of the recipe
CENTRAL = {"68": (32, 167), "95": (5, 194)}
NUMBERS = (1, 2, 3, 5, 10, 20, 40, 93)  # of tokens, for the figure


def bins_of(kit, mask):
    return [f"xp_bin_{w:.0f}" for w in kit.wave[mask]]


def all_tokens(network, kit, path):
    """Every star of the kit as tokens of the network's vocabulary; checked against the benchmark's own reading of the file."""
    from emuinfer.tokens import stars_tokens

    with np.load(path) as data:
        tokens = stars_tokens(dict(data), network.vocabulary).tokens
    a_k, columns = network.vocabulary.index("a_k"), [network.vocabulary.index(k) for k in INPUTS]
    tokens.errors[:, a_k] = np.where(np.isnan(tokens.errors[:, a_k]), A_K_ERROR, tokens.errors[:, a_k])
    np.testing.assert_allclose(tokens.values[:, columns], kit.inputs, rtol=1e-3, atol=1e-4)
    return tokens


def changed(tokens, **values):
    """Tokens with kinds set to exact values."""
    out = tokens[np.arange(len(tokens))]
    for name, value in values.items():
        column = tokens.vocabulary.index(name)
        out.values[:, column], out.errors[:, column] = value, np.nan
    return out


def compared(ours, theirs, seed=0):
    """Robust sd of paired residuals, and the difference (ours minus theirs) in units of its bootstrap sd over stars."""
    random, n = np.random.default_rng(seed), len(ours)
    difference = []
    for _ in range(RESAMPLED):
        rows = random.integers(0, n, n)
        difference.append(robust_sd(ours[rows]) - robust_sd(theirs[rows]))
    off, sd = robust_sd(ours) - robust_sd(theirs), np.std(difference)
    return {
        "n": n,
        "ours": float(robust_sd(ours)),
        "theirs": float(robust_sd(theirs)),
        "difference": float(off),
        "sigma": float(sd),
        "in_sigma": float(off / sd),
        "resampled_not_better": float(np.mean(np.array(difference) >= 0)),
    }


class Controls:
    """Answers of the controls for a split, star by star."""

    def __init__(self, folder, split):
        self.folder, self.split = folder, split

    def answer(self, name):
        """Its `rows`, `answer` and what else is there of the split; None where the control was not run."""
        path = self.folder / f"{name}.npz" if self.folder else None
        if path is None or not path.exists():
            return None
        with np.load(path) as file:
            answers = dict(file)
        end = f"_{self.split}"
        return {k.removesuffix(end): v for k, v in answers.items() if k.endswith(end)}

    def compare(self, name, rows, residual, truth, column=None):
        """`compared` on the stars that both have answered."""
        control = self.answer(name)
        if control is None:
            return None
        theirs = control["answer"] if column is None else control["answer"][:, column]
        _, a, b = np.intersect1d(rows, control["rows"], return_indices=True)
        if not np.array_equal(np.sort(rows[a]), rows) and name.startswith("xgb"):
            raise SystemExit(f"{name} has not answered all {len(rows)} stars of the question: other selections?")
        return compared(residual[a], theirs[b] - truth[control["rows"][b]])


def labels(network, tokens, kit, split, controls):
    """Labels from 90 coefficients and three colours; residuals by label, and the answers' medians for the figure."""
    rows = kit.rows(split, kit.chosen)
    found = middle(network.ask(tokens[rows].only(INPUTS), want=list(LABELS)))
    out, shown = {}, {}
    for j, label in enumerate(LABELS):
        truth = kit.label[label]
        known = np.isfinite(truth[rows])
        residual = (found[:, j] - truth[rows])[known]
        out[label] = scatter(residual)
        out[label]["xgboost"] = controls.compare(f"xgb_{label}", rows[known], residual, truth)
        if label in THREE:
            column = THREE.index(label)
            out[label]["mlps"] = controls.compare("mlp_labels", rows[known], residual, truth, column)
        shown[label] = (truth[rows][known], found[known, j])
    return out, shown


def any_subset(network, tokens, kit, split, controls):
    """The ten random subsets: robust sd beside XGBoost retrained on each."""
    rows, out = kit.rows(split, kit.chosen), []
    for i, columns in enumerate(subsets()):
        names = [INPUTS[c] for c in columns]
        found = middle(network.ask(tokens[rows].only(names), want=list(THREE)))
        entry = {"tokens": len(names), "inputs": names}
        for j, label in enumerate(THREE):
            residual = found[:, j] - kit.label[label][rows]
            entry[label] = scatter(residual)
            entry[label]["xgboost"] = controls.compare(f"xgb_subset{i}_{label}", rows, residual, kit.label[label])
        ratios = [entry[k]["xgboost"]["ours"] / entry[k]["xgboost"]["theirs"] for k in THREE if entry[k]["xgboost"]]
        entry["ratio_to_xgboost"] = float(np.exp(np.mean(np.log(ratios)))) if len(ratios) == len(THREE) else None
        out.append(entry)
    return out


def better(entries):
    """In how many subsets the network beats XGBoost: label by label, and by the geometric mean of the three ratios."""
    ratios = [e["ratio_to_xgboost"] for e in entries if e["ratio_to_xgboost"] is not None]
    won = lambda k: sum(e[k]["xgboost"]["difference"] < 0 for e in entries if e[k]["xgboost"])
    return {"of": len(ratios), "all_three_together": sum(r < 1 for r in ratios), **{k: won(k) for k in THREE}}


def number_of_tokens(network, tokens, kit, split, seed=0):
    """Robust sd of the labels against the number of tokens, in one random order of the inputs for each star."""
    rows = kit.rows(split, kit.chosen)
    some = tokens[rows].only(INPUTS)
    columns = np.array([network.vocabulary.index(k) for k in INPUTS])
    late = 2.0 * ~some.seen[:, columns]  # what is missing comes last
    order = np.argsort(np.argsort(np.random.default_rng(seed).random(late.shape) + late, axis=1), axis=1)
    out = []
    for number in NUMBERS:
        part = some[np.arange(len(rows))]
        part.values[:, columns] = np.where(order < number, part.values[:, columns], np.nan)
        found = middle(network.ask(part, want=list(THREE)))
        out.append(
            {"tokens": number} | {k: float(robust_sd(found[:, j] - kit.label[k][rows])) for j, k in enumerate(THREE)}
        )
    return out


def middle(answer):
    """Medians, in physical units."""
    return answer.quantiles[0.5]


def painting(network, tokens, kit, split, controls, seed=0):
    """RP bins from BP bins; each star's fluxes are in a unit of their own, so that nothing can be told from their scale."""
    rows = kit.rows(split, kit.painted)
    given = tokens[rows].only(bins_of(kit, kit.bp))
    unit = np.random.default_rng(seed).lognormal(0.0, 3.0, (len(rows), 1))
    given.values[:] *= unit
    given.errors[:] *= unit
    want = bins_of(kit, ~kit.bp)
    answer = network.ask(given, want=want)
    log, truth = np.log(middle(answer) / unit), np.log(kit.bins[rows][:, ~kit.bp])
    out = log_scatter(log - truth)
    for name in ("bp_to_rp_mlp", "bp_to_rp_ridge"):
        if (control := controls.answer(name)) is not None:
            np.testing.assert_array_equal(control["rows"], rows)
            out[name] = log_scatter(control["residual"])
    spread = answer.sd / unit
    return out, {"rows": rows, "log": log, "sd": spread}


def relative(log, kit):
    """ln fluxes of the bins `DRAWN`, divided by their mean over 400-950 nm."""
    wave = kit.wave[DRAWN]
    return log - np.log(np.exp(log[:, (wave > 395) & (wave < 955)]).mean(1, keepdims=True))


def generated(network, tokens, kit, split, controls):
    """XP spectra from five labels, and the extinction curve from pairs of spectra that differ in A_K alone."""
    rows, want = kit.rows(split, kit.generated), bins_of(kit, DRAWN)
    answer = network.ask(tokens[rows].only(LABELS), want=want)
    truth = relative(np.log(kit.bins[rows][:, DRAWN]), kit)
    out = log_scatter(relative(np.log(middle(answer)), kit) - truth)
    control = controls.answer("labels_to_xp_mlp")
    law = np.array(json.loads((RESULTS / "stars_xp_baselines.json").read_text())["gordon2023_a_over_a_k"])
    curves = {"Gordon et al. 2023": law}
    if control is not None:
        np.testing.assert_array_equal(control["rows"], rows)
        out["mlp"] = log_scatter(relative(control["answer"], kit) - truth)
        out["mlp"]["extinction_curve"], curves["MLP"] = extinction_curve(*control["pair"], law)
    some = tokens[kit.extinction_rows(split)].only(LABELS)
    pair = [np.log(middle(network.ask(changed(some, a_k=a), want=want))) for a in A_K_PAIR]
    out["extinction_curve"], curves["network"] = extinction_curve(*pair, law)
    if hasattr(network, "as_emulator"):
        from emuinfer.networks import extinction_curve as deconvolved

        both = (
            ("extinction_curve_deconvolved", "network, deconvolved", some),
            ("extinction_curve_deconvolved_all", "network, deconvolved, all stars", tokens[rows].only(LABELS)),
        )
        for key, name, stars in both:
            curve = deconvolved(network, stars, observe=want).curve
            out[key], curves[name] = curve_score(curve, law, len(stars))
        score, curves["network, as emulator"] = extinction_curve(*emulated(network, some, want), law)
        out["extinction_curve_of_emulator"] = score
    return out, curves


def emulated(network, some, want):
    """The pairs of ln spectra from `as_emulator`, whose mean is what the likelihoods use."""
    import jax

    emulator = network.as_emulator(condition=list(LABELS), observe=want)
    column = [some.vocabulary.index(k) for k in LABELS]
    predict = jax.jit(jax.vmap(lambda labels: emulator.predict(labels)[0]))
    return [np.asarray(predict(changed(some, a_k=a).values[:, column].astype(np.float32))) for a in A_K_PAIR]


def coverage(network, tokens, kit, split, seed=0):
    """Shares of stars whose APOGEE label is in the central 68 and 95 %, by thirds of the XP spectrum's S/N.

    Labels are noisy, answers are of what is true: each of 199 quantiles gets an error as APOGEE states it (of A_K, which has none, that
    found on the validation split, `calibration.label_errors` of the card; without one `A_K_ERROR`). A network with a calibration
    is given the bins too, as users' spectra have them: it reads the coefficients alone, and the calibration takes the S/N from the bins.
    """
    rows = kit.rows(split, kit.chosen)
    calibration = getattr(network, "calibration", None)
    found = calibration.label_errors if calibration else {}
    kinds = [*INPUTS, "xp_bins"] if calibration else INPUTS
    context, third = tokens[rows].only(kinds), np.argsort(np.argsort(kit.snr[rows])) * 3 // len(rows)
    answer, random, out = network.ask(context, want=list(LABELS), levels=RANKS), np.random.default_rng(seed), {}
    for j, label in enumerate(LABELS):
        points = np.stack([answer.quantiles[p][:, j] for p in RANKS], 1)
        column = tokens.vocabulary.index(label)
        error = found.get(label, np.nan_to_num(tokens.errors[rows, column])) * np.ones(len(rows))
        truth = kit.label[label][rows]
        noisy = points + error[:, None] * random.standard_normal(points.shape)
        out[label] = []
        for part in [*(third == t for t in range(3)), third >= 0]:
            part &= np.isfinite(truth)
            entry = {"n": int(part.sum()), "snr": [float(f(kit.snr[rows][part])) for f in (np.min, np.max)]}
            for name, with_noise in (("", noisy), ("_without_error", points)):
                rank = (with_noise[part] < truth[part, None]).sum(1)
                entry |= {
                    f"coverage_{k}{name}": float(np.mean((rank >= a) & (rank <= b))) for k, (a, b) in CENTRAL.items()
                }
            out[label].append(entry)
    return out


def speed(network, tokens, kit, split):
    """Seconds for the five labels of 1,000 stars from 93 tokens, after a first call; the fastest of three."""
    thousand = tokens[kit.rows(split, kit.chosen)[:1000]].only(INPUTS)
    seconds = []
    for _ in range(4):
        clock = time.perf_counter()
        network.ask(thousand, want=list(LABELS))
        seconds.append(time.perf_counter() - clock)
    return {"n": len(thousand), "first_s": seconds[0], "seconds_1000": min(seconds[1:]) * 1000 / len(thousand)}
