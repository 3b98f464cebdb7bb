"""Training and evaluation of emulators."""

from .baselines import fit_logit_pca, fit_mlp, fit_polynomial
from .config import TrainConfig
from .coverage import coverage
from .data import labels_for
from .endless import pretrain
from .evaluate import error_table, load_statistics, predict, residual_statistics, save_statistics
from .gaussian_process import fit_logit_gp
from .start import start_from_components, start_from_teacher
from .train import train
from .uncertainty import fit_uncertainty

__all__ = [
    "TrainConfig",
    "coverage",
    "error_table",
    "fit_logit_gp",
    "fit_logit_pca",
    "fit_mlp",
    "fit_polynomial",
    "fit_uncertainty",
    "labels_for",
    "load_statistics",
    "predict",
    "pretrain",
    "residual_statistics",
    "save_statistics",
    "start_from_components",
    "start_from_teacher",
    "train",
]
