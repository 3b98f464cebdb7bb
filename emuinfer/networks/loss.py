"""The loss of an any-to-any network: minus the logarithm of the density of what it was asked for."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int

from . import heads
from .masking import Batch


class AnyToAnyLoss(eqx.Module):
    """The mean over labels plus `others` times the mean over all other questions; `heads` `(K,)` are numbers of `heads.HEADS`."""

    heads: Int[Array, " kinds"]
    labels: int = eqx.field(static=True)
    others: float = eqx.field(static=True)

    def __call__(self, network, batch: Batch):
        b = Batch(*batch)
        outputs = network.decode(network.encode(b.x, b.e, b.seen), b.asked, b.given, b.given_e, b.known)
        each = heads.log_prob(outputs, b.y, b.noise, self.heads[b.asked])
        each = jnp.where(b.valid, each, 0.0)
        mean = lambda part: -jnp.sum(each[:, part]) / jnp.maximum(jnp.sum(b.valid[:, part], dtype=each.dtype), 1.0)
        of_labels, of_others = mean(slice(0, self.labels)), mean(slice(self.labels, None))
        return of_labels + self.others * of_others, {"labels": of_labels, "others": of_others}
