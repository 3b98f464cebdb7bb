"""Elements: symbols, masses, solar abundances, ionisation energies, partition functions; and labels -> abundances."""

import functools
from pathlib import Path

import numpy as np

from ..errors import LabelError, suggestion

DATA = Path(__file__).parents[1] / "data" / "physics" / "elements.npz"
# Elements that follow [Mg/Fe] unless they have a label of their own.
ALPHA = ("O", "Ne", "Mg", "Si", "S", "Ar", "Ca", "Ti")


@functools.cache
def element_data() -> dict[str, np.ndarray]:
    """The table built by `build_physics_data`: arrays over atomic number Z = 1..92, see that module for the sources."""
    with np.load(DATA) as file:
        return {key: file[key] for key in file.files}


def atomic_number(symbol: str) -> int:
    symbols = element_data()["symbol"].tolist()
    if symbol not in symbols:
        raise LabelError(f"Unknown element '{symbol}'.")
    return symbols.index(symbol) + 1


def solar_composition(name: str, label_names) -> np.ndarray:
    """log10(N_X / N_H) of the 92 elements in the Sun.

    `"asplund2009"`: Asplund et al. (2009) for all. `"mixed"`: Asplund et al. for the elements that labels name, iron and the
    α elements, Grevesse et al. (2007) for the others, which is what the Turbospectrum spectra that emulators are
    fine-tuned on turn out to use (Ce, Pr, Na, V and others fit to 0.02 dex, and are 0.05 to 0.15 dex off otherwise).
    """
    data = element_data()
    if name == "asplund2009":
        return data["abundance"] - 12.0
    if name != "mixed":
        hint = suggestion(name, ("mixed", "asplund2009"))
        raise LabelError(f"Unknown solar composition '{name}'.{hint} Choose 'mixed' or 'asplund2009'.")
    labelled = {n[:-3].capitalize() for n in label_names if n.endswith("_fe")}
    keep = np.isin(data["symbol"], ["H", "He", "Fe", *ALPHA, *labelled])
    return np.where(keep, data["abundance"], data["abundance_2007"]) - 12.0


def abundance_matrix(label_names) -> np.ndarray:
    """Matrix M, shape (n_labels, 92), such that log10(N_X / N_H) = solar + labels @ M.

    [Fe/H] moves every metal, `x_fe` labels move their own element, and α elements without a label follow `mg_fe`.
    Raises `LabelError` for a label that is neither atmospheric nor an abundance.
    """
    matrix = np.zeros((len(label_names), len(element_data()["symbol"])))
    own = {n: atomic_number(n[:-3].capitalize()) for n in label_names if n.endswith("_fe")}
    for i, name in enumerate(label_names):
        if name == "fe_h":
            matrix[i, 2:] = 1.0
        elif name in own:
            matrix[i, own[name] - 1] = 1.0
            if name == "mg_fe":
                free = [atomic_number(s) for s in ALPHA if atomic_number(s) not in own.values()]
                matrix[i, np.array(free, dtype=int) - 1] = 1.0
        elif name not in ("teff", "logg", "vmic"):
            raise LabelError(f"The synthesis does not know the label '{name}'; use teff, logg, vmic, fe_h or x_fe.")
    return matrix
