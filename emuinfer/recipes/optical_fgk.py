"""The recipe of the shipped emulator: simple physics and few realistic spectra.

    python -m emuinfer.recipes.optical_fgk --simple lte.h5 --realistic turbospectrum.npz --directory runs/flagship

1. Teacher: Gaussian processes fitted jointly to many spectra of simple physics and the few realistic training spectra.
2. Start: the transformer's bilinear part learns the teacher's components at tens of thousands of labels.
3. With `--steps START FINE`, FINE > 0: all weights go on, on the pixels of the realistic training spectra and of teacher
   spectra between them. Trials of this with blocks and without did not lower the held-out error, so it is left out.

The held-out part is seen by none of them. A killed run goes on from its last finished step, or the last checkpoint of 3.
"""

import argparse
import dataclasses
from pathlib import Path

import jax
import numpy as np

from ..emulators import TransformerConfig, TransformerPayne, save_emulator
from ..emulators.baselines import LogitGP
from ..emulators.training.config import TrainConfig
from ..emulators.training.gaussian_process import fit_logit_gp
from ..emulators.training.start import known_emulator, start_from_teacher
from ..emulators.training.train import train
from ..grids import Grid, import_npz
from ..grids.split import flagship_split
from ..labels.design import sobol_design
from ..labels.windows import window

CONFIG = TransformerConfig(depth=0, rank=320, label_hidden=512, branch_layers=3, branch_theta=True)
START = {"n": 65536, "steps": 12000}
FINE = TrainConfig(steps=2000, warmup=100, learning_rate=3e-4, table_rate=0.3, decay=0.7, seed=1)


def fit_teacher(simple: Grid, realistic: Grid, rows, directory: Path, components=400) -> LogitGP:
    """Joint Gaussian processes of the whole simple grid and `rows` of the realistic one; kept as `teacher` in `directory`."""
    path = directory / "teacher.json"
    if not path.exists():
        spectra = np.asarray(simple.labels), np.asarray(simple.flux)
        teacher = fit_logit_gp(
            realistic.label_space,
            np.asarray(realistic.labels)[rows],
            np.asarray(realistic.flux)[rows],
            realistic.wavelength,
            medium=realistic.medium,
            simple=spectra,
            components=components,
            noise=2e-4,
        )
        save_emulator(teacher, path, {"grid_hash": realistic.hash, "simple_hash": simple.hash})
    return known_emulator(path, LogitGP)[0]


def start(teacher: LogitGP, directory: Path, config=CONFIG, settings=START, seed=0, progress=True) -> TransformerPayne:
    """A transformer that follows `teacher`; kept as `start` in `directory`."""
    path = directory / "start.json"
    if not path.exists():
        fresh = TransformerPayne(
            teacher.label_space, teacher.wavelength_range, teacher.medium, config, key=jax.random.key(seed)
        )
        save_emulator(
            start_from_teacher(fresh, teacher, **settings, seed=seed, progress=progress), path, {"start": settings}
        )
    return known_emulator(path, TransformerPayne)[0]


def teacher_spectra(teacher, n: int, seed: int = 11):
    """Labels of a Sobol design and the teacher's spectra at them, on the teacher's own pixels."""
    labels = sobol_design(teacher.label_space, n, seed=seed)
    wavelength = teacher.grid.wavelength
    return labels, np.concatenate([np.asarray(teacher(labels[i : i + 50], wavelength)) for i in range(0, n, 50)])


def fine_tune(
    emulator, realistic: Grid, rows, held, teacher, directory: Path, settings=FINE, n_teacher=4000, progress=True
):
    """Step 3 on `rows` of the realistic grid and `n_teacher` teacher spectra; `held` rows only for the metrics file."""
    labels, flux = np.asarray(realistic.labels), np.asarray(realistic.flux)
    all_labels, all_flux = [labels[rows]], [flux[rows]]
    if teacher is not None:
        more_labels, more_flux = teacher_spectra(teacher, n_teacher)
        # The realistic spectra count twice: they carry no error of the teacher.
        all_labels += [labels[rows], more_labels]
        all_flux += [flux[rows], more_flux]
    emulator = train(
        emulator,
        np.concatenate(all_labels),
        np.concatenate(all_flux),
        realistic.wavelength,
        config=settings,
        held_out=(labels[held], flux[held]),
        directory=directory / "fine",
        progress=progress,
    )
    save_emulator(
        emulator, directory / "finished.json", {"recipe": dataclasses.asdict(settings), "grid_hash": realistic.hash}
    )
    return emulator


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simple", required=True, help="grid of simple-physics spectra (HDF5, `emuinfer grid make`)")
    parser.add_argument("--realistic", required=True, help="grid of realistic spectra (.npz or HDF5)")
    parser.add_argument("--window", help="whose labels the spectra have; the first by default")
    parser.add_argument("--medium", help="of the wavelengths of an .npz file; the window's by default")
    parser.add_argument("--directory", required=True, type=Path)
    parser.add_argument("--width", type=int, default=CONFIG.width)
    parser.add_argument("--depth", type=int, default=CONFIG.depth)
    parser.add_argument("--steps", type=int, nargs=2, default=(START["steps"], 0), metavar=("START", "FINE"))
    parser.add_argument("--quiet", action="store_true")
    args = parser.parse_args(argv)
    args.directory.mkdir(parents=True, exist_ok=True)
    path, progress, entry = args.realistic, not args.quiet, window(args.window)
    if path.endswith(".npz"):
        realistic = import_npz(path, label_space=entry.label_space, medium=args.medium or entry.medium)
    else:
        realistic = Grid.load(path)
    rows, held = flagship_split(len(realistic))
    teacher = fit_teacher(Grid.load(args.simple), realistic, rows, args.directory)
    config = dataclasses.replace(CONFIG, width=args.width, depth=args.depth)
    emulator = start(teacher, args.directory, config, {**START, "steps": args.steps[0]}, progress=progress)
    if args.steps[1]:
        settings = dataclasses.replace(FINE, steps=args.steps[1])
        fine_tune(emulator, realistic, rows, held, teacher, args.directory, settings, progress=progress)


if __name__ == "__main__":
    main()
