"""All that knows ArviZ: posteriors on disk, diagnostics, smoothed importance weights."""

from .convergence import effective_size as effective_size
from .convergence import r_hat as r_hat
from .diagnose import ESS_LIMIT as ESS_LIMIT
from .diagnose import R_HAT_LIMIT as R_HAT_LIMIT
from .diagnose import diagnose as diagnose
from .diagnose import piles_up as piles_up
from .library import import_arviz as import_arviz
from .limits import Limit as Limit
from .limits import Prior as Prior
from .limits import limit_of as limit_of
from .limits import limits_of as limits_of
from .pareto import pareto_smoothed_weights as pareto_smoothed_weights
from .pareto import verify_flag as verify_flag
from .posterior import build_posterior as build_posterior
from .posterior import draws_of as draws_of
from .posterior import load_posterior as load_posterior
from .posterior import plain_attrs as plain_attrs
from .posterior import save_posterior as save_posterior
from .posterior import stored_limits as stored_limits
from .posterior import summary_table as summary_table
