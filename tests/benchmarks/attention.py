"""Which label tokens the lines of each element attend to.

    python -m tests.benchmarks.attention TRANSFORMER [--spectra 24]

For random labels, the pixels that respond to an element alone are found by finite differences of `optical-fgk`. The figure,
`results/attention.png`, shows for each block and token how much more these pixels attend to it than the average pixel does (mean over
spectra, of the head that differs most), and beside it how much each token changes with each label.
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import jax
import matplotlib.pyplot as plt
import numpy as np

from emuinfer import load_emulator
from emuinfer.labels.design import sobol_design
from emuinfer.plotting import label_text

RESULTS = Path(__file__).parent / "results"
NATIVE = 5100 + 0.02 * np.arange(10_001)
PURE = 0.6  # share of all elements' responses that one must have for a pixel to be its own
SEEN = 1e-3  # change of the flux with a tenth of the label's range
LEAST = 20  # pixels


def responses(emulator, labels, names):
    """|Δ flux| of each label moved by a tenth of its range, `(n_names, n_wave)`."""
    rows = []
    for name in names:
        i = emulator.labels.index(name)
        step = np.zeros(len(labels))
        step[i] = 0.1 * emulator.label_space.half_width[i]
        rows.append(np.abs(np.asarray(emulator(labels + step, NATIVE)) - np.asarray(emulator(labels - step, NATIVE))))
    return np.array(rows)


def measure(emulator, physics, n, seed=0):
    """Mean excess attention `(n_blocks, n_labels, heads, tokens)` of each element's own pixels, and how many pixels those are."""
    names = [name for name in emulator.labels if name.endswith("_fe")]
    space, total, pixels = emulator.label_space, 0.0, np.zeros(len(names), int)
    margin = 0.9  # labels may be moved by a tenth
    seen = np.zeros(len(names))
    for labels in sobol_design(space, n, seed=seed):
        labels = space.centre + margin * (labels - space.centre)
        response = responses(physics, labels, names)
        own = (response > PURE * response.sum(0)) & (response > SEEN)
        shares = np.array(emulator.attention(labels, NATIVE))
        mean = shares.mean(axis=1)
        excess = np.stack(
            [shares[:, o].mean(axis=1) - mean if o.sum() >= LEAST else np.zeros_like(mean) for o in own], axis=1
        )
        total, pixels = total + excess, pixels + own.sum(1)
        seen += own.sum(1) >= LEAST
    return names, total / np.maximum(seen, 1)[:, None, None], pixels


def token_responses(emulator):
    """RMS change of each token per scaled label at the centre, `(n_labels, n_tokens)`, as a share of the label's largest."""
    jacobian = np.asarray(jax.jacfwd(emulator.tokens)(np.zeros(len(emulator.labels), np.float32)))
    size = np.sqrt((jacobian**2).mean(axis=1)).T
    return size / size.max(axis=1, keepdims=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("emulator")
    parser.add_argument("--spectra", type=int, default=24)
    arguments = parser.parse_args()
    emulator = load_emulator(arguments.emulator)
    names, excess, pixels = measure(emulator, load_emulator("optical-fgk"), arguments.spectra)
    head = np.abs(excess).max(axis=-1).argmax(axis=-1)
    shown = np.take_along_axis(excess, head[:, :, None, None], axis=2)[:, :, 0]
    blocks, ticks = len(shown), [label_text(n) for n in names]
    figure, axes = plt.subplots(1, blocks + 1, figsize=(4.2 * (blocks + 1), 4.4), layout="constrained")
    limit = np.abs(shown).max()
    for k, axis in enumerate(axes[:-1]):
        image = axis.imshow(shown[k], cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
        axis.set(
            title=f"block {k + 1}: attention of an element's lines\nless that of the average pixel",
            xlabel="label token",
        )
        axis.set_yticks(range(len(names)), ticks)
    figure.colorbar(image, ax=axes[:-1], label="share of the attention", shrink=0.8)
    image = axes[-1].imshow(token_responses(emulator), cmap="Greys", vmin=0, vmax=1, aspect="auto")
    axes[-1].set(title="change of the token with the label\n(share of the label's largest)", xlabel="label token")
    axes[-1].set_yticks(range(len(emulator.labels)), [label_text(n) for n in emulator.labels])
    figure.colorbar(image, ax=axes[-1], shrink=0.8)
    figure.savefig(RESULTS / "attention.png", dpi=110)
    table = {
        n: {"pixels": int(p), "largest_excess": [float(np.abs(e[i]).max()) for e in shown]}
        for i, (n, p) in enumerate(zip(names, pixels))
    }
    (RESULTS / "attention.json").write_text(
        json.dumps({"spectra": arguments.spectra, "seed": 0, "elements": table}, indent=1)
    )
    for name, row in table.items():
        print(f"{name:6s} {row}")


if __name__ == "__main__":
    main()
