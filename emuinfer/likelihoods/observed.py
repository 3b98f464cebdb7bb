"""The distribution of a spectrum's pixels, for NumPyro."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

LOG_2_PI = float(np.log(2 * np.pi))


class PixelDistribution(dist.Distribution):
    """Gaussian pixels, each given all others; a batch of `n_pix`.

    **Arguments**, all `(n_pix,)`: `loc` (mean) and `sd` in the unit of the data; `used`, False where a pixel says nothing: its log
    density is 0.
    """

    arg_constraints = {
        "loc": dist.constraints.real,
        "sd": dist.constraints.positive,
        "used": dist.constraints.boolean,
    }
    support = dist.constraints.real
    reparametrized_params = ["loc", "sd"]

    def __init__(self, loc, sd, used, *, validate_args=None):
        self.loc, self.sd, self.used = loc, sd, used
        super().__init__(batch_shape=jnp.shape(loc), validate_args=validate_args)

    def sample(self, key, sample_shape=()):
        """Fluxes `(*sample_shape, n_pix)`."""
        noise = jax.random.normal(key, (*sample_shape, *self.batch_shape), jnp.result_type(self.sd))
        return self.loc + self.sd * noise

    def log_prob(self, value):
        """Log density of each pixel, `(n_pix,)`."""
        r = (value - self.loc) / self.sd
        return jnp.where(self.used, -0.5 * (r**2 + LOG_2_PI) - jnp.log(self.sd), 0.0)

    @property
    def mean(self):
        """Means of the pixels, `(n_pix,)`."""
        return self.loc
