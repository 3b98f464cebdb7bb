"""The covariance of the shipped emulator's error, learned from spectra that it has not seen, and what it covers.

    python -m emuinfer.recipes.emulator_uncertainty optical-fgk --simple lte.h5 --realistic turbospectrum.npz --residuals cv.npz

makes the cross-validated residuals of the Gaussian-process emulator (or goes on with them, or reads them), fits
`EmulatorUncertainty`, saves it beside the emulator, and prints its coverage of the held-out tenth of the grid. For an
emulator that learned from Gaussian processes, `--teacher` names these: the residuals are then those of the teacher's
refits, with its length scales, plus what the emulator departs from its teacher.
"""

import argparse
import datetime
import json
from pathlib import Path

import numpy as np

from ..emulators import load_emulator
from ..emulators.baselines import LogitGP
from ..emulators.storage import find_stem
from ..emulators.training import coverage, fit_logit_gp, fit_uncertainty, predict
from ..emulators.training.start import known_emulator
from ..emulators.training.uncertainty import cross_validated_flux
from ..emulators.uncertainty import save_uncertainty
from ..grids import Grid, import_npz
from ..grids.split import flagship_split
from ..labels.windows import window


def refit(simple: Grid, medium: str, teacher=None, components: int = 160, noise: float = 2e-4):
    """A function of labels and flux to Gaussian processes of them and the `simple` spectra, as the teacher was made."""
    settings: dict = {"components": components, "noise": noise}
    if teacher is not None:
        lengths = 1 / np.asarray(teacher.sums[0].inverse_length, float)
        settings |= {"components": len(teacher.basis), "lengths": lengths}
    spectra = np.asarray(simple.labels), np.asarray(simple.flux)

    def fit(space, labels, flux, wavelength):
        return fit_logit_gp(space, labels, flux, wavelength, medium=medium, simple=spectra, **settings)

    return fit


def departure(emulator, teacher, labels, wavelength):
    """What the flux of `emulator` departs from that of its `teacher` near `labels` `(n, n_labels)`, with random signs.

    At labels that neither has seen the two errors are independent; at the training labels they are not, as the teacher
    alone has learned their residuals. So the departure is taken near them, with signs drawn at random.
    """
    space, rng = emulator.label_space, np.random.default_rng(9)
    shift = rng.uniform(-0.15, 0.15, labels.shape) * space.half_width
    near = np.clip(labels + shift, space.lower, space.upper)
    difference = predict(emulator, near, wavelength) - predict(teacher, near, wavelength)
    return rng.choice([-1.0, 1.0], (len(near), 1)).astype(np.float32) * difference


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("emulator", help="name or path of the emulator to save the uncertainty beside")
    parser.add_argument("--simple", required=True, help="grid of simple-physics spectra (HDF5)")
    parser.add_argument("--realistic", required=True, help="grid of realistic spectra (.npz)")
    parser.add_argument("--residuals", required=True, help="where the cross-validated residuals are kept (.npz)")
    parser.add_argument("--rank", type=int, default=20)
    parser.add_argument("--folds", type=int, default=8)
    parser.add_argument("--simple-spectra", type=int, default=3000, help="how many spectra of simple physics")
    parser.add_argument("--components", type=int, default=160, help="of the Gaussian-process emulator")
    parser.add_argument("--noise", type=float, default=2e-4, help="its nugget")
    parser.add_argument("--teacher", help="path of the Gaussian processes that the emulator learned from")
    parser.add_argument("--window", help="whose labels and medium the spectra have; the first by default")
    args = parser.parse_args(argv)
    entry = window(args.window)
    space, medium = entry.label_space, entry.medium
    grid = import_npz(args.realistic, label_space=space, medium=medium)
    wavelength, labels, flux = grid.wavelength, np.asarray(grid.labels), np.asarray(grid.flux)
    train, test = flagship_split(len(grid))

    emulator = load_emulator(args.emulator)
    teacher = known_emulator(args.teacher, LogitGP)[0] if args.teacher else None
    simple = Grid.load(args.simple)
    again = refit(
        simple.subset(np.arange(len(simple))[: args.simple_spectra]), medium, teacher, args.components, args.noise
    )
    seen = cross_validated_flux(
        lambda labels, flux: again(space, labels, flux, wavelength),
        labels[train], flux[train], wavelength, folds=args.folds, path=args.residuals, progress=True,
    )  # fmt: skip
    if teacher is not None:
        seen = seen + departure(emulator, teacher, labels[train], wavelength)
    uncertainty = fit_uncertainty(
        space, labels[train], seen - flux[train], seen, wavelength, rank=args.rank, medium=medium
    )
    predicted = predict(emulator, labels[test], wavelength)
    table = coverage(uncertainty, labels[test], predicted - flux[test], predicted, wavelength)
    components = args.components if teacher is None else len(teacher.basis)
    card = {
        "title": f"Error of {args.emulator}: diagonal and {uncertainty.rank} factors",
        "learned_on": f"{args.folds}-fold cross-validation of the recipe on its {len(train)} realistic spectra",
        "recipe": {"components": components, "simple_spectra": args.simple_spectra, "noise": args.noise},
        "realistic_grid": {"file": Path(args.realistic).name, "hash": grid.hash},
        "held_out_coverage": table,
        "limits": "The error with respect to the realistic grid, not that of the grid with respect to stars.",
        "date": datetime.date.today().isoformat(),
    }
    print(save_uncertainty(uncertainty, find_stem(args.emulator), emulator=emulator, card=card))
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
