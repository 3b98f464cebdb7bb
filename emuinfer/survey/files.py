"""What a survey run leaves on disk: a part per batch, and in the end one table.

OUTPUT/plan.json             what is run: settings, data, versions; another run refuses to go on with it
OUTPUT/parts/part-000012.npz the results of batch 12; written under another name and renamed when complete
OUTPUT/draws/draws-000012.nc its draws, if asked for
OUTPUT/results.fits          one row per star, once all parts are there
"""

from pathlib import Path

import numpy as np

from ..errors import SamplingError
from ..files import RunFolder, read_arrays, write_arrays
from .summary import MEASURED

PLAN, TABLE = "plan.json", "results.fits"
GO_ON = "Free some space or allow writing there, and run again: what was finished is kept."


class Folder(RunFolder):
    """The folder of one run. Raises `SamplingError` where it holds another run, naming what differs."""

    PLAN, KIND, ERROR, GO_ON = PLAN, "run of fit_many", SamplingError, GO_ON

    def __init__(self, path, plan: dict, overwrite=False):
        self.parts, self.draws = Path(path) / "parts", Path(path) / "draws"
        super().__init__(path, plan, overwrite)

    def discard(self):
        for file in [*self.parts.glob("*"), *self.draws.glob("*"), self.path / TABLE]:
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
    for key in (*MEASURED, "divergences", "repaired", "n_pixels", "snr", "seconds", "problem"):
        table[key] = whole[key]
    table.sort("row")
    table.meta = meta
    return table
