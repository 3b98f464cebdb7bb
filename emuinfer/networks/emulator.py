"""`NetworkEmulator`: a network as an emulator of what is observed, with the errors of its predictions; see `emuinfer.XPModel`."""

import jax.numpy as jnp
import numpy as np

from ..errors import TokenError
from . import heads


class NetworkEmulator:
    """Predicts kinds from labels: mean and standard deviation in the kinds' transformed space (ln flux of bins, to their level).

    - `labels`, `lower`, `upper`: what it is conditioned on, and the range of the training values.
    - `kinds`: what it predicts. - `factors` `(m, r)`: what the errors of the prediction have in common, measured on stars that the
      network was not trained on; `predict` gives the standard deviations of the rest.
    """

    def __init__(self, network, condition, observe):
        v = network.vocabulary
        self.network, self.condition, self.observe = network, tuple(map(int, condition)), tuple(map(int, observe))
        overlap = sorted({v.names[i] for i in self.condition} & {v.names[i] for i in self.observe})
        if overlap:
            raise TokenError(f"{', '.join(overlap)} cannot be condition and observed at once. Leave them out of one.")
        self.labels = tuple(v.names[i] for i in self.condition)
        self.kinds = tuple(v.names[i] for i in self.observe)
        self.vocabulary = v
        bound = lambda which: np.array([getattr(v[i], which) for i in self.condition], dtype=np.float32)
        self.lower, self.upper = bound("lower"), bound("upper")
        self._log = np.array([v[i].transform == "log" for i in self.condition])
        self.unique = np.ones(len(self.observe), np.float32)
        self.factors = np.zeros((len(self.observe), 0), np.float32)
        correlation = network.card.get("correlation", {})
        if all(name in correlation.get("kinds", ()) for name in self.kinds):
            rows = [correlation["kinds"].index(name) for name in self.kinds]
            self.factors = np.array(correlation["factors"], np.float32)[rows]
            self.unique = np.array(correlation["unique"], np.float32)[rows]

    def predict(self, labels):
        """`labels` `(d,)` in their units to means and standard deviations `(m,)`."""
        net, v, given = self.network.net, self.vocabulary, list(self.condition)
        labels = jnp.asarray(labels, jnp.float32)
        transformed = jnp.where(self._log, jnp.log(jnp.maximum(labels, 1e-30)), labels)
        z = (transformed - jnp.asarray(v.centre[given], jnp.float32)) / jnp.asarray(v.scale[given], jnp.float32)
        x = jnp.zeros(len(v)).at[jnp.array(given)].set(z)
        seen = np.isin(np.arange(len(v)), given)
        asked = jnp.array(self.observe)
        outputs = net.decode(net.encode(x, jnp.zeros_like(x), jnp.asarray(seen)), asked)
        mean, sd = heads.moments(outputs, jnp.asarray(self.network.heads[list(self.observe)]))
        scale, centre = (jnp.asarray(a[list(self.observe)], jnp.float32) for a in (v.scale, v.centre))
        return mean * scale + centre, sd * scale * self.unique
