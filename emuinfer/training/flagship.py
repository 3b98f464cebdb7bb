"""The two-stage recipe of the shipped transformer: simple physics first, then realistic spectra.

    python -m emuinfer.training.flagship --simple lte.h5 --realistic turbospectrum.npz --directory runs/flagship

Stage 1 starts the bilinear part from principal components of the simple-physics grid and trains everything on its pixels.
Stage 2 goes on with the realistic training spectra and, beside them, spectra of a Gaussian-process teacher fitted to the
same training spectra, which fills the label space between them. The held-out part is seen by neither. A killed run goes on
from its last checkpoint when started again.
"""

import argparse
import dataclasses
from pathlib import Path

import jax
import numpy as np

from ..emulators import TransformerConfig, TransformerPayne, load_emulator, save_emulator
from ..grids import Grid, import_npz
from ..grids.design import sobol_design
from ..labels import OPTICAL_FGK
from .config import TrainConfig
from .recipe import start_from_components
from .train import train

STAGE_1 = TrainConfig(steps=3000, warmup=200, learning_rate=1e-3, table_rate=0.3, decay=0.5)
STAGE_2 = TrainConfig(steps=3000, warmup=100, learning_rate=6e-4, table_rate=0.3, decay=0.7, seed=1)


def fixed_split(n: int, seed: int = 0):
    """`(train, test)` row indices with a tenth held out, as used for every emulator and control of the flagship grid."""
    order = np.random.default_rng(seed).permutation(n)
    held = n // 10
    return np.sort(order[held:]), np.sort(order[:held])


def pretrain(simple: Grid, config: TransformerConfig, directory: Path, settings=STAGE_1, seed=0, progress=True):
    """Stage 1; returns the emulator and leaves it as `stage1` in `directory`."""
    finished = directory / "stage1.json"
    if finished.exists():
        return load_emulator(finished)
    emulator = TransformerPayne(
        simple.label_space, (simple.wavelength[0], simple.wavelength[-1]), simple.medium, config, key=jax.random.key(seed)
    )
    rows, held = fixed_split(len(simple), seed)
    labels, flux = np.asarray(simple.labels), np.asarray(simple.flux)
    start = directory / "start.json"
    if start.exists():
        emulator = load_emulator(start)
    else:
        emulator = start_from_components(emulator, labels[rows], flux[rows], simple.wavelength, seed=seed, progress=progress)
        save_emulator(emulator, start)
    emulator = train(
        emulator, labels[rows], flux[rows], simple.wavelength,
        config=settings, held_out=(labels[held[:48]], flux[held[:48]]), directory=directory / "stage1", progress=progress,
    )
    save_emulator(emulator, finished, {"recipe": dataclasses.asdict(settings), "grid_hash": simple.hash})
    return emulator


def teacher_spectra(teacher, n: int, seed: int = 11):
    """Labels of a Sobol design and the teacher's spectra at them, on the teacher's own pixels."""
    labels = sobol_design(teacher.label_space, n, seed=seed)
    wavelength = teacher.grid.wavelength
    return labels, np.concatenate([np.asarray(teacher(labels[i : i + 50], wavelength)) for i in range(0, n, 50)])


def fine_tune(emulator, realistic: Grid, rows, held, teacher, directory: Path, settings=STAGE_2, n_teacher=4000, progress=True):
    """Stage 2 on `rows` of the realistic grid and `n_teacher` teacher spectra; `held` rows only for the metrics file."""
    labels, flux = np.asarray(realistic.labels), np.asarray(realistic.flux)
    all_labels, all_flux = [labels[rows]], [flux[rows]]
    if teacher is not None:
        more_labels, more_flux = teacher_spectra(teacher, n_teacher)
        # The realistic spectra count twice: they carry no error of the teacher.
        all_labels += [labels[rows], more_labels]
        all_flux += [flux[rows], more_flux]
    emulator = train(
        emulator, np.concatenate(all_labels), np.concatenate(all_flux), realistic.wavelength,
        config=settings, held_out=(labels[held], flux[held]), directory=directory / "stage2", progress=progress,
    )
    save_emulator(emulator, directory / "stage2.json", {"recipe": dataclasses.asdict(settings), "grid_hash": realistic.hash})
    return emulator


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simple", required=True, help="grid of simple-physics spectra (HDF5, `emuinfer grid make`)")
    parser.add_argument("--realistic", required=True, help="grid of realistic spectra (.npz or HDF5)")
    parser.add_argument("--medium", default="air")
    parser.add_argument("--teacher", help="card of the Gaussian-process emulator fitted to the realistic training part")
    parser.add_argument("--directory", required=True, type=Path)
    parser.add_argument("--stage", choices=("1", "2", "both"), default="both")
    for name in ("width", "depth", "rank"):
        parser.add_argument(f"--{name}", type=int, default=getattr(TransformerConfig, name))
    parser.add_argument("--steps", type=int, nargs=2, default=(STAGE_1.steps, STAGE_2.steps))
    parser.add_argument("--quiet", action="store_true")
    args = parser.parse_args(argv)
    args.directory.mkdir(parents=True, exist_ok=True)
    config = TransformerConfig(width=args.width, depth=args.depth, rank=args.rank)
    settings = dataclasses.replace(STAGE_1, steps=args.steps[0]), dataclasses.replace(STAGE_2, steps=args.steps[1])
    emulator = pretrain(Grid.load(args.simple), config, args.directory, settings[0], progress=not args.quiet)
    if args.stage == "1":
        return
    path = args.realistic
    realistic = import_npz(path, label_space=OPTICAL_FGK, medium=args.medium) if path.endswith(".npz") else Grid.load(path)
    rows, held = fixed_split(len(realistic))
    teacher = load_emulator(args.teacher) if args.teacher else None
    fine_tune(emulator, realistic, rows, held, teacher, args.directory, settings[1], progress=not args.quiet)


if __name__ == "__main__":
    main()
