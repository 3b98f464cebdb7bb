"""Joint draws: each kind given those before it, a product of conditional distributions with an exact density."""

import equinox as eqx
import jax
import jax.numpy as jnp

from . import heads


def draw_jointly(net, key, x, e, seen, wanted, kinds, draws: int, factor=None):
    """Draws `(n, draws, d)` of `wanted` in this order, standardised, and the logarithms `(n, draws)` of their density.

    Kinds that the decoder may be given (labels) are drawn first, with one encoding for each object; what follows them is
    asked with what was drawn in the context, one encoding for each draw. `log_density` gives the same density for values that
    come from elsewhere. `factor` `(n, K)`: by which widths are multiplied, if they are.
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
    place = {kind: i for i, kind in enumerate(net.given)}  # those that the decoder may be given
    order = sorted(range(len(wanted)), key=lambda i: wanted[i] not in place)
    latents = net.encode(x, e, seen)

    def one(key, value):
        found = jnp.zeros(len(wanted)) if value is None else value
        total, given, known = 0.0, jnp.zeros(len(net.given)), jnp.zeros(len(net.given), bool)
        xx, ee, ss = x, e, seen
        for number, i in enumerate(order):
            kind = wanted[i]
            if kind in place:
                outputs = net.decode(latents, jnp.array([kind]), given, jnp.zeros_like(given), known[None])[0]
            else:
                outputs = net.decode(net.encode(xx, ee, ss), jnp.array([kind]))[0]
            if factor is not None:
                outputs = heads.widened(outputs, factor[kind], kinds[kind])
            if value is None:
                found = found.at[i].set(heads.sample(jax.random.fold_in(key, number), outputs, kinds[kind]))
            total = total + heads.log_prob(outputs, found[i], jnp.zeros(()), kinds[kind])
            if kind in place:
                given, known = given.at[place[kind]].set(found[i]), known.at[place[kind]].set(True)
            xx, ee, ss = xx.at[kind].set(found[i]), ee.at[kind].set(0.0), ss.at[kind].set(True)
        return found, total

    return jax.vmap(lambda k: one(k, None))(keys) if values is None else jax.vmap(lambda v: one(None, v))(values)
