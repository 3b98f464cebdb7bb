"""What all figures share: how parameters are written, a figure without a display, files written whole."""

import functools
import io
import re

from ..files import require_folder_of, shelter_libraries, written_whole

SYMBOLS = {
    "teff": r"$T_\mathrm{eff}$",
    "logg": r"$\log g$",
    "vmic": r"$v_\mathrm{mic}$",
    "rv": r"$v_\mathrm{rad}$",
    "rv_offset": r"$\Delta v_\mathrm{rad}$",
    "vsini": r"$v\,\sin i$",
    "vbroad": r"$v_\mathrm{broad}$",
    "vmac": r"$v_\mathrm{mac}$",
    "log10_jitter": r"$\log_{10}$ jitter",
    "log10_resolution": r"$\log_{10} R$",
}
VELOCITIES = ("vmic", "rv", "rv_offset", "vsini", "vbroad", "vmac")
UNITS = {"teff": "K", "log10_jitter": "of continuum", **dict.fromkeys(VELOCITIES, "km/s")}
DATA, MODEL, SHADE = "#333333", "#d1495b", "#d9d9d9"


def label_text(name: str) -> str:
    """How a parameter is written on an axis, with its unit: `"teff"` as T_eff [K], `"fe_h"` as [Fe/H], `"mg_fe"` as [Mg/Fe].

    Parameters of one of several arms name it: `"rv_offset_2"` as Δv_rad, arm 2 [km/s].
    """
    unit = UNITS.get(_kind_and_arm(name)[0])
    return bare_text(name) + (f" [{unit}]" if unit else "")


def bare_text(name: str) -> str:
    """`label_text` without its unit."""
    kind, arm = _kind_and_arm(name)
    if kind in SYMBOLS:
        return SYMBOLS[kind] + (f", arm {arm}" if arm else "")
    parts = name.split("_")
    if (len(parts) == 2 and parts[1] in ("h", "fe") and 1 <= len(parts[0]) <= 2) or name in ("alpha_fe", "alpha_h"):
        over = {"h": "H", "fe": "Fe"}[parts[1]]
        return "[" + {"alpha": r"$\alpha$"}.get(parts[0], parts[0].capitalize()) + f"/{over}]"
    return name.replace("_", " ")


def _kind_and_arm(name: str) -> tuple[str, str]:
    """`("rv_offset", "2")` of `"rv_offset_2"`, `("teff", "")` of `"teff"`."""
    numbered = re.fullmatch(r"(log10_jitter|rv_offset)_(\d+)", name)
    return (numbered[1], numbered[2]) if numbered else (name, "")


def kept_settings():
    """A block after which matplotlib's settings are as they were, for libraries that change them when they are imported."""
    shelter_libraries()
    import matplotlib

    return matplotlib.rc_context()


def new_figure(width: float, height: float):
    """A figure, inches wide and high, that knows nothing of pyplot: it needs no display, and the user's backend stays.

    Notebooks show it as it is, whether or not pyplot has told them of figures.
    """
    shelter_libraries()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100)
    FigureCanvasAgg(figure)
    figure._repr_png_ = functools.partial(_png_of, figure)  # type: ignore[attr-defined]
    return figure


def _png_of(figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def write_figure(figure, path) -> None:
    """Write a PNG file whole or not at all; `path` None writes none. `EmuinferError` where its folder does not exist."""
    if path is None:
        return
    with written_whole(require_folder_of(path)) as temporary:
        figure.savefig(temporary, format="png")
