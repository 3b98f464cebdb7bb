"""JAX's strict promotion of dtypes for the tests, with libraries that mix dtypes themselves left alone."""

import contextlib
import functools
import inspect
import pkgutil
import sys

import jax
import pytest

# Functions that mix integers or booleans with floats.
MIXING = [
    "blackjax.adaptation.mass_matrix.welford_algorithm",
    "blackjax.adaptation.staged_adaptation.build_schedule",
    "blackjax.adjusted_mclmc_dynamic.build_kernel",
    "blackjax.adjusted_mclmc_find_L_and_step_size",
    "blackjax.ns.utils.compute_num_live",
    "blackjax.optimizers.dual_averaging.dual_averaging",
    "numpyro.distributions.constraints._Boolean.__call__",
    "numpyro.distributions.truncated.logsumexp",
    "optax.schedules._schedule.cosine_decay_schedule",
    "optax.schedules._schedule.linear_schedule",
    "optax.schedules._schedule.polynomial_schedule",
    "optax.tree_utils._tree_math.tree_bias_correction",
]


def lenient(thing):
    """`thing`, a function, with JAX's usual promotion inside it and inside the functions that it returns."""
    if isinstance(thing, tuple):
        return type(thing)(*map(lenient, thing)) if hasattr(thing, "_fields") else tuple(map(lenient, thing))
    if not inspect.isfunction(inspect.unwrap(thing)):
        return thing

    @functools.wraps(thing)
    def call(*arguments, **options):
        with jax.numpy_dtype_promotion("standard"):
            return lenient(thing(*arguments, **options))

    return call


@contextlib.contextmanager
def strict_promotion():
    """No dtypes are mixed unasked: a boolean or an integer that becomes a float, a float32 that becomes a float64, is an error."""
    with pytest.MonkeyPatch.context() as patch:
        for path in MIXING:
            mixing = pkgutil.resolve_name(path)
            patch.setattr(path, lenient(mixing))
            for user in list(sys.modules.values()) if path.startswith(mixing.__module__) else []:
                for name in [name for name, value in getattr(user, "__dict__", {}).items() if value is mixing]:
                    patch.setattr(user, name, lenient(mixing))  # imported from there by its name
        before = jax.config.jax_numpy_dtype_promotion
        jax.config.update("jax_numpy_dtype_promotion", "strict")
        yield
        jax.config.update("jax_numpy_dtype_promotion", before)
