"""Where a run stands, in one file, so that a killed run goes on to the same draws."""

import dataclasses
import hashlib
import json
import pathlib
from importlib.metadata import version

import jax
import numpy as np

from ..errors import SamplingError
from ..files import differences, read_arrays, write_arrays

GO_ON = "Free some space or allow writing there, and start the same run again: it goes on from its last checkpoint."


@dataclasses.dataclass
class Checkpoint:
    """A checkpoint file at `path` for a run described by `facts`; without a path it does nothing.

    The file is a NumPy archive: the description (JSON), the step reached, the state of chains and adaptation, all draws
    and statistics so far, and the seconds they took.
    """

    path: pathlib.Path | None
    facts: dict

    @classmethod
    def open(cls, path, facts, log_density, data, arrays):
        """`facts` are settings, to which the log density's name and fingerprints of `data` and `arrays` are added."""
        if path is None:
            return cls(None, {})
        path = pathlib.Path(path)
        if path.is_dir() or not path.resolve().parent.is_dir():
            raise SamplingError(f"`checkpoint` must be a file in a folder that exists; got '{path}'.")
        facts = {
            **facts,
            "log density": getattr(log_density, "__qualname__", type(log_density).__name__),
            "starts and covariance": _fingerprint(arrays),
            "data": _fingerprint(data),
            "versions": f"jax {version('jax')}, blackjax {version('blackjax')}",
        }
        return cls(path, facts)

    def load(self, carry):
        """`(step, carry, parts, clocks)`: from the file, or those of a run that begins with `carry`."""
        if self.path is None or not self.path.exists():
            return 0, carry, [], [(0, 0.0)]
        remedy = "Delete it to begin anew, or give another path."
        arrays = read_arrays(self.path, SamplingError, remedy)
        if "facts" not in arrays:
            raise SamplingError(f"'{self.path}' is not a checkpoint of a sampler. {remedy}")
        facts = json.loads(str(arrays["facts"]))
        differ = [f"{d.name} ({d.there} there, {d.now} now)" for d in differences(facts, self.facts)]
        if differ:
            raise SamplingError(
                f"The checkpoint '{self.path}' is of another run: it differs in {'; '.join(differ)}. Use the same "
                "settings, delete the file to begin anew, or give another path."
            )
        leaves, structure = jax.tree.flatten(carry)
        carry = jax.tree.unflatten(structure, [jax.device_put(arrays[f"carry{i}"]) for i in range(len(leaves))])
        stats = {k.removeprefix("stats:"): v for k, v in arrays.items() if k.startswith("stats:")}
        return int(arrays["step"]), carry, [(arrays["positions"], stats)], [tuple(x) for x in arrays["clocks"]]

    def save(self, step, carry, parts, clocks):
        """Write everything to a temporary file that then takes the place of the old one; returns `parts`, joined."""
        if self.path is None:
            return parts
        positions, stats = jax.tree.map(lambda *x: np.concatenate(x, axis=1), *parts)
        arrays: dict = {f"carry{i}": np.asarray(x) for i, x in enumerate(jax.tree.leaves(carry))}
        arrays |= {f"stats:{k}": v for k, v in stats.items()}
        arrays |= {"facts": json.dumps(self.facts), "step": step, "positions": positions, "clocks": clocks}
        write_arrays(self.path, arrays, SamplingError, compressed=False, remedy=GO_ON)
        return [(positions, stats)]


def _fingerprint(tree):
    """Shapes and a hash of contents, such as `12 arrays, 34567 numbers, sha256 0123456789ab`."""
    leaves, _structure = jax.tree.flatten(tree)
    total, count = hashlib.sha256(), 0
    for leaf in leaves:
        if hasattr(leaf, "shape") or isinstance(leaf, (int, float, complex)):
            x = np.asarray(leaf)
            count += x.size
            total.update(f"{x.dtype}{x.shape}".encode() + x.tobytes())
    return f"{len(leaves)} leaves, {count} numbers, sha256 {total.hexdigest()[:12]}"
