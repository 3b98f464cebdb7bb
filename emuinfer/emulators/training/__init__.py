"""Training and evaluation of emulators."""

from .baselines import fit_logit_pca, fit_mlp, fit_polynomial
from .config import TrainConfig
from .coverage import coverage
from .data import Trained, labels_for
from .endless import pretrain, pretrain_on_window
from .evaluate import error_table, format_table, load_statistics, predict, residual_statistics, save_statistics
from .gaussian_process import fit_logit_gp
from .on_grid import train_on_grid
from .start import start_from_components, start_from_teacher
from .train import train
from .uncertainty import fit_uncertainty

__all__ = [
    "TrainConfig",
    "Trained",
    "coverage",
    "error_table",
    "fit_logit_gp",
    "fit_logit_pca",
    "fit_mlp",
    "fit_polynomial",
    "fit_uncertainty",
    "format_table",
    "labels_for",
    "load_statistics",
    "predict",
    "pretrain",
    "pretrain_on_window",
    "residual_statistics",
    "save_statistics",
    "start_from_components",
    "start_from_teacher",
    "train",
    "train_on_grid",
]
