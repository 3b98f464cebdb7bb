"""The stars of the benchmarks `stars_xp` and `stars_xp_baselines`: real Gaia XP spectra with APOGEE labels, selections, scores.

Needs NumPy alone, so that the controls run in an environment of their own. Splits: 0 train, 1 validation, 2 test.
"""

from pathlib import Path

import numpy as np

KIT = Path(__file__).parents[2] / ".." / "shared" / "data" / "foundation" / "stars_xp_apogee.npz"
RESULTS = Path(__file__).parent / "results"
LABELS = ("teff", "logg", "fe_h", "alpha_m", "a_k")
THREE = LABELS[:3]
COLOURS = ("j_h", "j_k", "bp_rp")
COEFFICIENTS = tuple(f"xp_{i:03d}" for i in range(90))
INPUTS = COEFFICIENTS + COLOURS
SUBSET_SEED = 12
A_K_PAIR = (0.1, 0.5)  # mag: the extinction curve is the difference of two generated spectra
BP_END = 640.0  # nm, between BP and RP
DRAWN = slice(6, 64)  # the bins 396-976 nm that are generated from labels


class Kit:
    """All stars: `label[name]`, `coefficients` (n, 90) and `bins` (n, 68; 10 nm), both divided by the mean flux of 400-950 nm."""

    def __init__(self, path=KIT):
        with np.load(path) as data:
            names, table = data["label_names"].tolist(), data["labels"]
            coefficients = (data["coef_q"] * data["coef_scale"]).astype(np.float32)
            flux, wave = coefficients @ data["basis"].T, data["wave_nm"]
            self.split, self.source_id = data["split"], data["source_id"]
            low, high = data["err_log10_range"]
            sigma = 10 ** (data["err_q"] / 255 * (high - low) + low)  # at every second wavelength
            self.snr = np.median(np.abs(flux[:, data["err_index"]]) / sigma, 1)  # of the XP spectrum, per 2 nm
        mean = flux[:, (wave > 400) & (wave < 950)].mean(1, keepdims=True)
        starts = range(0, 340, 5)
        self.label = {k: table[:, i].astype(float) for i, k in enumerate(names)}
        self.coefficients = coefficients / mean
        self.bins = np.stack([flux[:, i : i + 5].mean(1) for i in starts], 1) / mean
        self.wave = np.array([wave[i : i + 5].mean() for i in starts])  # nm
        y = self.label
        self.colours = np.stack([y["j"] - y["h"], y["j"] - y["k"], y["bp"] - y["rp"]], 1)
        self.inputs = np.concatenate([self.coefficients, self.colours], 1).astype(np.float32)
        self.cool = y["teff"] < 8000
        self.chosen = np.isfinite(y["fe_h"]) & (y["apogee_snr"] > 30) & self.cool
        bright = self.bins > 1e-3
        five = np.isfinite(np.stack([y[k] for k in LABELS])).all(0)
        self.generated = five & (y["apogee_snr"] > 30) & self.cool & bright[:, DRAWN].all(1)  # labels -> XP
        self.painted = self.cool & bright[:, 6:].all(1)  # BP -> RP
        self.bp = self.wave < BP_END

    def rows(self, split, mask, label=None):
        """Rows of a split where `mask` holds and the label is known."""
        known = True if label is None else np.isfinite(self.label[label])
        return np.flatnonzero((self.split == split) & mask & known)

    def extinction_rows(self, split):
        """300 stars of 4,200-5,500 K whose labels serve for the extinction curve."""
        teff = self.label["teff"]
        return self.rows(split, self.generated & (teff > 4200) & (teff < 5500))[:300]

    def painting(self, rows):
        """(ln of the BP bins, ln of the RP bins), both relative to the mean flux of BP."""
        flux = self.bins[rows]
        log = np.log(np.clip(flux / flux[:, self.bp].mean(1, keepdims=True), 1e-3, None))
        return log[:, self.bp], log[:, ~self.bp]


def subsets():
    """Ten random sets of 5 to 60 of the 93 inputs, as sorted columns of `Kit.inputs`."""
    random = np.random.default_rng(SUBSET_SEED)
    sizes = random.integers(5, 61, 10)
    return [np.sort(random.choice(len(INPUTS), size, replace=False)) for size in sizes]


def robust_sd(residual, axis=None):
    """1.4826 times the median absolute deviation from the median."""
    return 1.4826 * np.median(np.abs(residual - np.median(residual, axis, keepdims=True)), axis)


def scatter(residual):
    """Robust sd, bias (median), rms about the mean, and number of residuals."""
    return {
        "n": len(residual),
        "robust_sd": float(robust_sd(residual)),
        "bias": float(np.median(residual)),
        "rms": float(np.std(residual)),
    }


def log_scatter(residual):
    """Of residuals (n, bins) of ln flux."""
    size = np.abs(residual)
    return {
        "n": len(residual),
        "median_abs_dln": float(np.median(size)),
        "p84": float(np.percentile(size, 84)),
        "rms": float(np.std(residual)),
    }


def extinction_curve(low, high, true):
    """(Score, curve) of ln spectra (n, bins) generated at two A_K, against a true A(λ)/A_K; spectra are relative: so is it."""
    return curve_score((low - high).mean(0) * 2.5 / np.log(10) / (A_K_PAIR[1] - A_K_PAIR[0]), true, len(low))


def curve_of(result):
    """The score of a network's extinction curve: with the errors of the labels taken out, where the network can do that."""
    made = result["labels_to_xp"]
    return made.get("extinction_curve_deconvolved", made["extinction_curve"])


def curve_score(curve, true, n):
    """The same of a curve that is the mean of n stars."""
    off = curve - curve.mean() - (true - true.mean())
    score = {
        "n": n,
        "rms_a_per_a_k": float(off.std()),
        "rms_over_span": float(off.std() / np.ptp(true)),
        "slope": float(np.polyfit(true, curve, 1)[0]),
    }
    return score, curve + (true - curve).mean()
