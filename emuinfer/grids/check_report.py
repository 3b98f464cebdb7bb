"""What a check of a grid says, as a report; and the sample of spectra in which responses are measured."""

import dataclasses

import numpy as np

from ..errors import suggestion

OK, WARN, FAIL, SKIPPED = "ok", "warn", "FAIL", "skipped"


@dataclasses.dataclass(frozen=True)
class Check:
    """One check: `verdict` is "ok", "warn", "FAIL" or "skipped"; `found` and `remedy` are for people, `details` for
    programs (JSON types)."""

    name: str
    verdict: str
    found: str
    remedy: str = ""
    details: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class GridReport:
    """What `check_grid` found: `report["medium"]` is a `Check`, `report.passed` is False if any check says FAIL."""

    grid: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.verdict != FAIL for check in self.checks)

    @property
    def complaints(self) -> tuple[str, ...]:
        """Names of the checks that warn or fail."""
        return tuple(check.name for check in self.checks if check.verdict in (WARN, FAIL))

    def __getitem__(self, name: str) -> Check:
        for check in self.checks:
            if check.name == name:
                return check
        known = [c.name for c in self.checks]
        raise KeyError(f"There is no check '{name}'; the checks are: {', '.join(known)}.{suggestion(name, known)}")

    def to_json(self) -> dict:
        """A mapping of JSON types: grid, passed, and the checks with their details."""
        return {"grid": self.grid, "passed": self.passed, "checks": [dataclasses.asdict(c) for c in self.checks]}

    def __str__(self):
        lines = [self.grid]
        for check in self.checks:
            lines.append(f"  {check.verdict:<8} {check.name}: {check.found}")
            if check.remedy:
                lines.append(f"           -> {check.remedy}")
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class Sample:
    """Some rows and pixels of a grid, in which the response to the labels is measured.

    `rows` (n,) are indices into the grid, `labels` (n, n_labels) float64, `wavelength` (p,) Å, `flux` (n, p) float32.
    """

    rows: np.ndarray
    labels: np.ndarray
    wavelength: np.ndarray
    flux: np.ndarray

    def opacity(self) -> np.ndarray:
        """log(1/f - 1 + 0.02), (n, p) float32: about linear in abundances, whether lines are weak or strong."""
        flux = np.clip(self.flux, 0.005, 1.0)
        return np.log(1.0 / flux - 0.98)
