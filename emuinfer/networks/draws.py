"""Joint draws: each kind given those before it, a product of conditional distributions with an exact density."""

import equinox as eqx
import jax
import jax.numpy as jnp

from . import heads


def draw_jointly(net, key, x, e, seen, wanted, kinds, draws: int, factor=None):
    """Draws `(n, draws, d)` of `wanted` in this order, standardised, and the logarithms `(n, draws)` of their density.

    Each is asked with those drawn before it in the context, so that from the second on every draw has an encoding of its own.
    `log_density` gives the same density for values that come from elsewhere. `factor` `(n, K)`: by which widths are multiplied.
    """
    keys = jax.random.split(key, len(x))
    return _draw(net, keys, x, e, seen, tuple(int(i) for i in wanted), jnp.asarray(kinds), draws, factor)


@eqx.filter_jit
def _draw(net, keys, x, e, seen, wanted, kinds, draws: int, factor):
    # One object after the other: memory does not grow with their number.
    one = lambda o: draws_of_one(net, o[0], o[1], o[2], o[3], wanted, kinds, draws, *o[4:])
    return jax.lax.map(one, (keys, x, e, seen) if factor is None else (keys, x, e, seen, factor))


def draws_of_one(net, key, x, e, seen, wanted, kinds, draws: int, factor=None):
    """Draws `(draws, d)` for one object and their log densities `(draws,)`."""
    return _chain(net, x, e, seen, wanted, kinds, jax.random.split(key, draws), None, factor)


def log_density(net, x, e, seen, wanted, kinds, values, factor=None):
    """The logarithm `(m,)` of the density of standardised `values` `(m, d)` of one object."""
    return _chain(net, x, e, seen, wanted, kinds, None, values, factor)[1]


def _chain(net, x, e, seen, wanted, kinds, keys, values, factor):
    wanted = [int(kind) for kind in wanted]

    def one(key, value):
        found = jnp.zeros(len(wanted)) if value is None else value
        total, xx, ee, ss = jnp.zeros(()), x, e, seen
        for i, kind in enumerate(wanted):
            # By way of the context: an error of 0 means there what it meant in the training, one as usual. What is handed to the
            # decoder always had an error told in the training, and exact values there mislead it by several sigma.
            outputs = net.decode(net.encode(xx, ee, ss), jnp.array([kind]))[0]
            if factor is not None:
                outputs = heads.widened(outputs, factor[kind], kinds[kind])
            if value is None:
                found = found.at[i].set(heads.sample(jax.random.fold_in(key, i), outputs, kinds[kind]))
            total = total + heads.log_prob(outputs, found[i], jnp.zeros(()), kinds[kind])
            xx, ee, ss = xx.at[kind].set(found[i]), ee.at[kind].set(0.0), ss.at[kind].set(True)
        return found, total

    return jax.vmap(lambda k: one(k, None))(keys) if values is None else jax.vmap(lambda v: one(None, v))(values)
