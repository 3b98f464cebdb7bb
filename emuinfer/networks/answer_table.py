"""Answers as a table: names, units, descriptions and UCDs of its columns. Host only."""

import numpy as np

from ..labels.vocabulary import ucd_of

UCDS = {"colours": "phot.color", "magnitudes": "phot.mag", "xp_bins": "phot.flux.density"}


def columns_of(kinds, median, sd, quantiles, draws=None, log_prob=None) -> dict[str, np.ndarray]:
    """The columns of n answers: `NAME`, `e_NAME`, `NAME_p16`, … and, where there are draws, `NAME_draws` and `log_prob`.

    Arrays as those of `Answer`; numbers are float32, but for the values themselves.
    """
    found = {}
    for i, kind in enumerate(kinds):
        found[kind.name] = median[:, i]
        found[f"e_{kind.name}"] = sd[:, i].astype(np.float32)
        for p, q in quantiles.items():
            found[f"{kind.name}_{quantile_name(p)}"] = q[:, i].astype(np.float32)
        if draws is not None and draws.shape[1]:
            found[f"{kind.name}_draws"] = draws[..., i].astype(np.float32)
    if log_prob is not None and log_prob.shape[1]:
        found["log_prob"] = log_prob.astype(np.float32)
    return found


def quantile_name(probability: float) -> str:
    """`p16` of 0.16, `p2_5` of 0.025."""
    return f"p{100 * probability:.6g}".replace(".", "_")


def described(columns: dict[str, np.ndarray], kinds, key: str = "", others=()):
    """An `astropy.table.Table` of `columns` in which each says what it is; `others`: facts `(ucd, description)` of further ones."""
    from astropy.table import Table

    table = Table(columns, copy=False)
    of = {name: facts for kind in kinds for name, facts in _facts(kind, columns).items()}
    known = {"log_prob": ("stat.likelihood", "log of the joint density of the draws", ""), **of}
    known |= {name: (ucd, text, "") for name, (ucd, text) in dict(others).items()}
    known |= {key: ("meta.id;meta.main", "as in the input", "")} if key else {}
    for name, (ucd, text, unit) in known.items():
        if name in table.colnames:
            dex = "dex" in unit  # FITS knows no unit dex: it is in the description
            table[name].description = f"{text} [{unit}]" if dex else text
            table[name].unit = None if dex else unit or None
            table[name].meta["ucd"] = ucd
    return table


def _facts(kind, columns) -> dict[str, tuple[str, str, str]]:
    ucd = ucd_of(kind.name) if kind.group == "labels" else UCDS.get(kind.group, "stat.fit.param")
    text = kind.description or kind.name
    found = {
        kind.name: (f"{ucd};stat.median", f"median of {text}", kind.unit),
        f"e_{kind.name}": (f"stat.error;{ucd}", f"standard deviation of {text}", kind.unit),
        f"{kind.name}_draws": (ucd, f"joint draws of {text}", kind.unit),
    }
    start = f"{kind.name}_p"
    for name in columns:
        if name.startswith(start) and (number := name.removeprefix(start).replace("_", ".")).replace(".", "").isdigit():
            word = "min" if float(number) < 50 else "max" if float(number) > 50 else "median"
            found[name] = (f"{ucd};stat.{word}", f"{number} % quantile of {text}", kind.unit)
    return found
