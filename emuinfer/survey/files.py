"""What a survey run leaves on disk: a part per batch, and in the end one table.

OUTPUT/plan.json             what is run: settings, data, versions; another run refuses to go on with it
OUTPUT/parts/part-000012.npz the results of batch 12; written under another name and renamed when complete
OUTPUT/draws/draws-000012.nc its draws, if asked for
OUTPUT/results.fits          one row per star, once all parts are there
"""

from pathlib import Path

from ..errors import SamplingError
from ..files import RunFolder, read_arrays, write_arrays

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
