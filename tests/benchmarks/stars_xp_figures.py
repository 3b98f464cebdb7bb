"""The figures of `stars_xp`: labels, numbers of tokens, a painted spectrum, the extinction curve, coverage."""

import numpy as np

from tests.benchmarks.stars_xp_kit import DRAWN, LABELS, curve_of

NAMES = {"teff": "Teff [K]", "logg": "log g", "fe_h": "[Fe/H]", "alpha_m": "[α/M]", "a_k": "A_K [mag]"}
BETWEEN = {"teff": (3200, 8000), "logg": (0, 5.3), "fe_h": (-2.5, 0.6), "alpha_m": (-0.15, 0.5), "a_k": (-0.1, 1.5)}


def draw(result, shown, kit, folder):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    for name, figure in (
        ("labels", of_labels(plt, result, shown["labels"])),
        ("tokens", of_tokens(plt, result)),
        ("painting", of_painting(plt, result, shown["painted"], kit)),
        ("extinction", of_extinction(plt, result, shown["curves"], kit)),
        ("coverage", of_coverage(plt, result)),
    ):
        figure.savefig(folder / f"stars_xp_{name}.png", dpi=110)
        plt.close(figure)


def of_labels(plt, result, shown):
    figure, axes = plt.subplots(1, 5, figsize=(17, 3.9), layout="constrained")
    for axis, label in zip(axes, LABELS):
        truth, answer = shown[label]
        low, high = BETWEEN[label]
        axis.hist2d(truth, answer, bins=90, range=[(low, high)] * 2, cmin=1, norm="log", cmap="viridis")
        axis.plot([low, high], [low, high], "r-", lw=0.8)
        score = result["labels"][label]
        axis.set(
            xlabel=f"APOGEE {NAMES[label]}", title=f"robust sd {score['robust_sd']:.3g}, bias {score['bias']:+.2g}"
        )
    axes[0].set_ylabel("from 90 XP coefficients and three colours")
    figure.suptitle(f"{result['labels']['teff']['n']} stars of the {result['split']} split")
    return figure


def of_tokens(plt, result):
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    curve = result["number_of_tokens"]
    for axis, label in zip(axes, ("teff", "logg", "fe_h")):
        axis.plot(
            [e["tokens"] for e in curve], [e[label] for e in curve], "k-", label="network, random tokens for each star"
        )
        for i, e in enumerate(result["subsets"]):
            axis.plot(e["tokens"], e[label]["robust_sd"], "C0o", label=None if i else "network, ten subsets")
            if e[label]["xgboost"]:
                theirs = e[label]["xgboost"]["theirs"]
                axis.plot(e["tokens"], theirs, "C1x", label=None if i else "XGBoost trained on each subset")
        axis.set(xscale="log", yscale="log", xlabel="tokens", ylabel=f"robust sd of {NAMES[label]}")
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_formatter("{x:g}")
            side.set_minor_formatter("{x:g}" if side is axis.yaxis else "")
    axes[0].legend(fontsize=8)
    return figure


def of_painting(plt, result, painted, kit):
    """Three stars: a cool, a middle and a hot one, near the median of the error."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    rows, log = painted["rows"], painted["log"]
    size = np.median(np.abs(log - np.log(kit.bins[rows][:, ~kit.bp])), 1)
    typical = np.abs(size / np.median(size) - 1) < 0.1
    for axis, (low, high) in zip(axes, ((3300, 4000), (4600, 5200), (6200, 7500))):
        fit = typical & (kit.label["teff"][rows] > low) & (kit.label["teff"][rows] < high)
        i = np.flatnonzero(fit)[0]
        star, flux, sd = rows[i], np.exp(log[i]), painted["sd"][i]
        axis.plot(kit.wave, kit.bins[star], "k.-", lw=0.8, label="Gaia XP, bins of 10 nm")
        axis.plot(kit.wave[~kit.bp], flux, "C3-", label="from BP alone")
        axis.fill_between(kit.wave[~kit.bp], flux - 2 * sd, flux + 2 * sd, color="C3", alpha=0.3, lw=0, label="2 sd")
        axis.axvspan(kit.wave[0], kit.wave[kit.bp][-1] + 5, color="0.93", zorder=0)
        axis.set(xlabel="wavelength [nm]", title=f"Gaia DR3 {kit.source_id[star]}, {kit.label['teff'][star]:.0f} K")
    axes[0].set_ylabel("flux / mean of 400-950 nm")
    axes[0].legend(fontsize=8)
    figure.suptitle(f"{result['bp_to_rp']['n']} stars: median |Δ ln f| {result['bp_to_rp']['median_abs_dln']:.4f}")
    return figure


def of_extinction(plt, result, curves, kit):
    figure, (axis, below) = plt.subplots(
        2, 1, figsize=(7, 6.5), sharex=True, height_ratios=[2, 1], layout="constrained"
    )
    wave, true = kit.wave[DRAWN], curves["Gordon et al. 2023"]
    axis.plot(wave, true, "k-", lw=2, label="Gordon et al. 2023, R_V = 3.1")
    for name, curve in curves.items():
        if curve is not true:
            line = axis.plot(wave, curve, label=name)
            below.plot(wave, curve - true, color=line[0].get_color())
    score = curve_of(result)
    axis.set(
        ylabel="A(λ) / A_K",
        title=f"best curve: rms {100 * score['rms_over_span']:.1f} % of the span, slope {score['slope']:.3f}",
    )
    below.axhline(0, color="k", lw=0.8)
    below.set(xlabel="wavelength [nm]", ylabel="difference")
    axis.legend()
    return figure


def of_coverage(plt, result):
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for axis, percent, margin in zip(axes, (68, 95), (2, 1.5)):
        axis.axhspan(percent - margin, percent + margin, color="0.9")
        axis.axhline(percent, color="k", lw=0.8)
        for i, (label, entries) in enumerate(result["coverage"].items()):
            share = np.array([e[f"coverage_{percent}"] for e in entries[:3]])
            error = np.sqrt(share * (1 - share) / [e["n"] for e in entries[:3]])
            axis.errorbar(np.arange(3) + 0.07 * (i - 2), 100 * share, 100 * error, fmt="o", ms=4, label=NAMES[label])
        limits = [f"S/N {e['snr'][0]:.0f}-{e['snr'][1]:.0f}" for e in entries[:3]]
        axis.set_xticks(range(3), limits)
        axis.set(ylabel=f"stars within the central {percent} % [%]")
    axes[0].legend(fontsize=8)
    return figure
