"""Compile a function of a log density once, and say how long that took."""

import collections
import time

import equinox as eqx
import jax
import numpy as np

_EXECUTABLES: collections.OrderedDict = collections.OrderedDict()
_MOST = 32  # executables kept; the oldest is dropped


def compile_once(function, log_density, data, *args, **static):
    """Compile `function(density, *args, **static)`, where `density(z)` is `log_density(z, data)`.

    The arrays in `data` and `args` are arguments of the compiled program, never constants in it, so that one program
    serves every star with arrays of the same shapes. Leaves of `data` that are not arrays (activation functions of an
    Equinox module, say) are static.

    Returns `(call, seconds)`: `call(data, *args)` runs it; `seconds` is 0 where it had been compiled before.
    """
    data, args = _strong(data), _strong(args)
    arrays, rest = eqx.partition(data, eqx.is_array)
    key = (function, log_density, tuple(sorted(static.items())), _signature((arrays, args)), _signature(rest))
    if key in _EXECUTABLES:
        _EXECUTABLES.move_to_end(key)
        return _EXECUTABLES[key], 0.0

    def program(arrays, args):
        whole = eqx.combine(arrays, rest)
        return function(lambda z: log_density(z, whole), *args, **static)

    start = time.perf_counter()
    executable = jax.jit(program).lower(arrays, args).compile()

    def call(data, *args):
        return executable(eqx.filter(_strong(data), eqx.is_array), _strong(args))

    _EXECUTABLES[key] = call
    if len(_EXECUTABLES) > _MOST:
        _EXECUTABLES.popitem(last=False)
    return call, time.perf_counter() - start


def _strong(tree):
    """Numbers and NumPy arrays as device arrays of definite type, so that `1.0` and `np.float64(1)` compile alike."""
    return jax.tree.map(lambda x: jax.device_put(_narrow(x)) if eqx.is_array_like(x) else x, tree)


def _narrow(x):
    return x if isinstance(x, jax.Array) else np.asarray(x, dtype=jax.dtypes.canonicalize_dtype(np.result_type(x)))


def _signature(tree):
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple(_array_signature(x) if isinstance(x, jax.Array) else x for x in leaves)


def _array_signature(x):
    return x.shape, str(x.dtype), getattr(x, "weak_type", False)  # arrays of random keys have no weak type
