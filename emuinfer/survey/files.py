"""What a survey run leaves on disk: a part per batch, and in the end one table.

OUTPUT/plan.json             what is run: settings, data, versions; another run refuses to go on with it
OUTPUT/parts/part-000012.npz the results of batch 12; written under another name and renamed when complete
OUTPUT/draws/draws-000012.nc its draws, if asked for
OUTPUT/results.fits          one row per star, once all parts are there
"""

import json
from pathlib import Path

import numpy as np

from ..errors import SamplingError
from ..files import read_arrays, write_arrays, write_json

PLAN, TABLE = "plan.json", "results.fits"
GO_ON = "Free some space or allow writing there, and run again: what was finished is kept."


class Folder:
    """The folder of one run. Raises `SamplingError` where it holds another run, naming what differs."""

    def __init__(self, path, plan: dict, overwrite=False):
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise SamplingError(f"The output {self.path} is a file; results go to a folder. Give another.")
        self.parts, self.draws = self.path / "parts", self.path / "draws"
        self.plan = json.loads(json.dumps(plan))
        known = self.path / PLAN
        if known.exists():
            self._compare(known, overwrite)
        elif self.path.exists() and any(self.path.iterdir()):
            raise SamplingError(f"{self.path} is not empty and holds no run of fit_many. Give another folder.")
        self.parts.mkdir(parents=True, exist_ok=True)
        if not known.exists():
            write_json(known, self.plan, SamplingError, remedy=GO_ON)

    def _compare(self, known, overwrite):
        try:
            old = json.loads(known.read_text())
        except ValueError as error:
            raise SamplingError(f"{known} is damaged ({error}). Delete {self.path} and start again.") from error
        different = sorted(k for k in {*old, *self.plan} if old.get(k) != self.plan.get(k) and k != "versions")
        if not different:
            return
        if not overwrite:
            k = different[0]
            raise SamplingError(
                f"{self.path} holds a run with other settings ({', '.join(different)}: {old.get(k)!r} there, "
                f"{self.plan.get(k)!r} now). Give another folder, or overwrite=True to throw that run away."
            )
        for file in [*self.parts.glob("*"), *self.draws.glob("*"), self.path / TABLE, known]:
            file.unlink(missing_ok=True)

    def part(self, number) -> Path:
        return self.parts / f"part-{number:06d}.npz"

    def done(self, number) -> bool:
        return self.part(number).exists()

    def save(self, number, results: dict):
        results = {k: v for k, v in results.items() if k != "draws"}
        write_arrays(self.part(number), results, SamplingError, compressed=False, remedy=GO_ON)

    def load(self, number) -> dict:
        return read_arrays(self.part(number), SamplingError, "Delete it and run again: only it is made anew.")

    def save_draws(self, number, posterior):
        from ..posteriors.posterior import save_posterior

        self.draws.mkdir(exist_ok=True)
        save_posterior(posterior, self.draws / f"draws-{number:06d}.nc")


def table_of_parts(parts, names, units, meta):
    """An `astropy.table.Table` of all stars from the parts' dicts of arrays.

    For each parameter its median with the parameter's own name, and `_sd`, `_q16`, `_q84`, `_mean`, `_r_hat`, `_ess`;
    `covariance` in the order of `meta["PARAMS"]`; and the facts of the fit.
    """
    from astropy.table import Table

    whole = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    table = Table()
    table["row"], table["name"] = whole["row"], whole["name"]
    table["flag"] = whole["flag"]
    for i, name in enumerate(names):
        for key in ("median", "sd", "q16", "q84", "mean", "r_hat", "ess"):
            column = name if key == "median" else f"{name}_{key}"
            unit = units.get(name) or None
            table[column] = whole[key][:, i].astype(np.float32 if key != "median" else np.float64)
            if key in ("r_hat", "ess"):
                continue
            if unit and "dex" not in unit:
                table[column].unit = unit
            elif unit:  # FITS knows no unit dex
                table[column].description = unit
    table["covariance"] = whole["covariance"].astype(np.float32)
    for key in (
        "k_hat",
        "chi2",
        "chi2_model",
        "down_weighted",
        "acceptance",
        "surrogate_error",
        "in_domain",
        "edge_distance",
        "divergences",
        "repaired",
        "n_pixels",
        "snr",
        "seconds",
        "problem",
    ):
        table[key] = whole[key]
    table.sort("row")
    table.meta = meta
    return table
