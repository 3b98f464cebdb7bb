"""`NetworkEmulator`: a network as an emulator of what is observed, with the errors of its predictions; see `emuinfer.XPModel`."""

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import TokenError
from . import heads


@jax.tree_util.register_pytree_node_class
class NetworkEmulator:
    """Predicts kinds from labels: mean and standard deviation in the kinds' transformed space (ln flux of bins, to their level).

    - `labels`, `lower`, `upper`: what it is conditioned on, and the range of the training values.
    - `kinds`: what it predicts. - `factors` `(m, r)`: what the errors of the prediction have in common, measured on stars that the
      network was not trained on; `predict` gives the standard deviations of the rest, which are `unique` times the network's.

    A pytree: weights, factors and `unique` are its leaves.
    """

    def __init__(self, network, condition, observe):
        v = self.vocabulary = network.vocabulary
        self.net, self.condition, self.observe = network.net, tuple(map(int, condition)), tuple(map(int, observe))
        overlap = sorted({v.names[i] for i in self.condition} & {v.names[i] for i in self.observe})
        if overlap:
            raise TokenError(f"{', '.join(overlap)} cannot be condition and observed at once. Leave them out of one.")
        self.heads = tuple(int(h) for h in network.heads[list(self.observe)])
        correlation = network.card.get("correlation", {})
        factors, unique = np.zeros((len(self.observe), 0)), np.ones(len(self.observe))
        if all(name in correlation.get("kinds", ()) for name in self.kinds):
            rows = [correlation["kinds"].index(name) for name in self.kinds]
            factors, unique = np.array(correlation["factors"])[rows], np.array(correlation["unique"])[rows]
        self.factors, self.unique = factors.astype(np.float32), unique.astype(np.float32)

    def tree_flatten(self):
        """Arrays, and what is static."""
        return (self.net, self.factors, self.unique), (self.vocabulary, self.condition, self.observe, self.heads)

    @classmethod
    def tree_unflatten(cls, static, arrays):
        """The reverse."""
        emulator = object.__new__(cls)
        emulator.net, emulator.factors, emulator.unique = arrays
        emulator.vocabulary, emulator.condition, emulator.observe, emulator.heads = static
        return emulator

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of what it is conditioned on."""
        return tuple(self.vocabulary.names[i] for i in self.condition)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of what it predicts."""
        return tuple(self.vocabulary.names[i] for i in self.observe)

    @property
    def lower(self) -> np.ndarray:
        """`(d,)`: the least of each label in training."""
        return np.array([self.vocabulary[i].lower for i in self.condition], dtype=np.float32)

    @property
    def upper(self) -> np.ndarray:
        """`(d,)`: the most of each label in training."""
        return np.array([self.vocabulary[i].upper for i in self.condition], dtype=np.float32)

    def predict(self, labels):
        """`labels` `(d,)` in their units to means and standard deviations `(m,)`."""
        net, v, given = self.net, self.vocabulary, list(self.condition)
        labels = jnp.asarray(labels, jnp.float32)
        log = np.array([v[i].transform == "log" for i in given])
        transformed = jnp.where(log, jnp.log(jnp.maximum(labels, 1e-30)), labels)
        z = (transformed - jnp.asarray(v.centre[given], jnp.float32)) / jnp.asarray(v.scale[given], jnp.float32)
        x = jnp.zeros(len(v)).at[jnp.array(given)].set(z)
        seen = np.isin(np.arange(len(v)), given)
        asked = jnp.array(self.observe)
        outputs = net.decode(net.encode(x, jnp.zeros_like(x), jnp.asarray(seen)), asked)
        mean, sd = heads.moments(outputs, jnp.asarray(self.heads))
        scale, centre = (jnp.asarray(a[list(self.observe)], jnp.float32) for a in (v.scale, v.centre))
        return mean * scale + centre, sd * scale * self.unique
