"""The samplers on one real star: `python -m tests.benchmarks.samplers` from the repository's root.

The posterior of the packaged HD 41248 with the default emulator's compressed surrogate, as `emuinfer.sample` makes it.
`nuts`, `hmc` and `mclmc` run in turns with as many draws each; the smallest bulk effective sample size over all
parameters, per gradient and per second, is the median over the rounds, compilation apart. For the other methods, and
for these too, the error of means and standard deviations against a long run of `nuts`, in its standard deviations.
"""

import json
import os
import platform
import sys
from pathlib import Path

import jax
import numpy as np

import emuinfer as ei
from emuinfer.emulators import emulator_hash
from emuinfer.inference import find_optimum
from emuinfer.posteriors.posterior import _convergence
from emuinfer.samplers import get_sampler

ROUNDS = 3
CHAINS = {
    "nuts": ("nuts", {"warmup": 300, "draws": 500, "target_acceptance": 0.9}),
    "hmc": ("hmc", {"warmup": 200, "draws": 500, "target_acceptance": 0.8}),
    "mclmc": ("mclmc", {"warmup": 300, "draws": 500}),
    "mclmc, 4 steps": ("mclmc", {"warmup": 300, "draws": 500, "trajectory_steps": 4.0}),
}
OTHERS = {
    "smc": ("smc", {"draws": 200, "chains": 2}),
    "nested": ("nested", {"draws": 250, "live": 100, "inner_steps": 15}),
    "pathfinder": ("pathfinder", {"draws": 500}),
    "laplace": ("laplace", {"draws": 500}),
}


def errors(positions, reference):
    """Largest errors over parameters of mean and standard deviation, in standard deviations of the reference."""
    x, y = (p.reshape(-1, p.shape[-1]).astype(float) for p in (positions, reference))
    return {
        "mean_error": float(np.max(np.abs(x.mean(0) - y.mean(0)) / y.std(0))),
        "sd_error": float(np.max(np.abs(x.std(0) / y.std(0) - 1))),
    }


def measured(result):
    """What one run of chains cost and gave; gradients and seconds with and without the warm-up."""
    r_hat, ess = np.transpose([_convergence(x) for x in np.moveaxis(result.positions.astype(float), -1, 0)])
    after = result.gradients - result.warmup["gradients"]
    seconds = result.timings["sampling_s"]
    return {
        "ess": ess.min(),
        "r_hat": r_hat.max(),
        "gradients": result.gradients,
        "ess_per_gradient": ess.min() / after,
        "ess_per_gradient_with_warmup": ess.min() / result.gradients,
        "ess_per_second": ess.min() / seconds,
        "ess_per_second_with_warmup": ess.min() / (seconds + result.timings["warmup_s"]),
        "seconds": seconds + result.timings["warmup_s"],
        "divergences": result.stats["diverging"].sum(),
        "acceptance": result.stats["acceptance_rate"].mean(),
    }


def main():
    model = ei.StellarModel(ei.load_emulator("optical-fgk"), ei.Observation.example("hd41248"))
    fit = find_optimum(model)
    density = fit.density

    def run(kind, seed):
        name, settings = kind
        settings = {"chains": 4, "seed": seed, "covariance": fit.covariance, "progress": False, **settings}
        result = get_sampler(name)(density.log_density, fit.z, fit.compressed, **settings)
        print(name, settings["seed"], {k: round(v, 2) for k, v in result.timings.items()}, file=sys.stderr, flush=True)
        return result

    reference = run(("nuts", {"warmup": 500, "draws": 1500, "target_acceptance": 0.9}), 100).positions
    rounds = {label: [] for label in CHAINS}
    for i in range(ROUNDS):
        for label, kind in CHAINS.items():
            result = run(kind, i)
            rounds[label].append(measured(result) | errors(result.positions, reference))
        rows = {label: {k: float(np.median([r[k] for r in runs])) for k in runs[0]} for label, runs in rounds.items()}
        facts = {
            "emulator": emulator_hash(model.full),
            "parameters": len(fit.z),
            "pixels": len(model.wavelength),
            "rounds": i + 1,
            "load": os.getloadavg()[0],
            "cores": os.cpu_count(),
            "machine": platform.processor() or platform.machine(),
            "jax": jax.__version__,
        }
        write({**facts, "rows": rows})
    for label, kind in OTHERS.items():
        result = run(kind, 0)
        rows[label] = errors(result.positions, reference) | {
            "seconds": result.timings["sampling_s"],
            "gradients": result.gradients,
            "notes": list(result.notes),
            "k_hat": result.warmup.get("k_hat"),
            "evidence": result.evidence,
        }
        write({**facts, "rows": rows})


def write(facts):
    """JSON of everything and a table for readers."""
    folder = Path(__file__).parent / "results"
    (folder / "samplers.json").write_text(json.dumps(facts, indent=1) + "\n")
    lines = [
        f"Samplers on HD 41248 ({facts['parameters']} parameters, {facts['pixels']} pixels, 4 chains of 500 draws, "
        f"{facts['cores']} cores under load {facts['load']:.1f}; emulator {facts['emulator'][:12]}). Bulk ESS is the "
        f"smallest over parameters; medians of {facts['rounds']} runs. Errors are against a long run of `nuts`.",
        "",
        "| method | ESS | ESS/gradient | with warm-up | ESS/s | with warm-up | R-hat | error of mean (sd) | of sd |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    others = ["", "| method | error of mean (sd) | of sd | k-hat | log Z | gradients | s |", "|---|" + 6 * "---|"]
    for label, r in facts["rows"].items():
        tail = f"{r['mean_error']:.3f} | {r['sd_error']:.3f} |"
        if "ess" in r:
            lines.append(
                f"| {label} | {r['ess']:.0f} | {r['ess_per_gradient']:.3f} | {r['ess_per_gradient_with_warmup']:.3f} | "
                f"{r['ess_per_second']:.1f} | {r['ess_per_second_with_warmup']:.1f} | {r['r_hat']:.3f} | {tail}"
            )
        else:
            k_hat = f"{r['k_hat']:.2f}" if r["k_hat"] is not None else ""
            log_z = "{:.2f} ± {:.2f}".format(*r["evidence"]) if r["evidence"] else ""
            others.append(f"| {label} | {tail} {k_hat} | {log_z} | {r['gradients']} | {r['seconds']:.1f} |")
    (folder / "samplers.md").write_text("\n".join(lines + (others if len(others) > 3 else [])) + "\n")


if __name__ == "__main__":
    main()
