"""Which columns of a user's table hold which kinds, and their units. Host only."""

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping

import numpy as np

from ..errors import TokenError, suggestion
from ..observations.readers.units import parse_unit
from .kinds import Vocabulary

# Magnitudes, which colours are made of: names of Gaia's archive and of 2MASS, and those of VizieR and others for the same.
MAGNITUDES = {
    "phot_g_mean_mag": ("gmag", "phot_g"),
    "phot_bp_mean_mag": ("bpmag", "phot_bp"),
    "phot_rp_mean_mag": ("rpmag", "phot_rp"),
    "j_m": ("jmag", "j_mag", "j_2mass"),
    "h_m": ("hmag", "h_mag", "h_2mass"),
    "ks_m": ("kmag", "ksmag", "k_m", "k_mag", "ks_mag", "k_2mass", "ks_2mass"),
}
COLOURS = {
    "bp_rp": ("phot_bp_mean_mag", "phot_rp_mean_mag"),
    "bp_g": ("phot_bp_mean_mag", "phot_g_mean_mag"),
    "g_rp": ("phot_g_mean_mag", "phot_rp_mean_mag"),
    "j_h": ("j_m", "h_m"),
    "j_k": ("j_m", "ks_m"),
    "h_k": ("h_m", "ks_m"),
    "g_k": ("phot_g_mean_mag", "ks_m"),
}
OTHER_NAMES = {
    **MAGNITUDES,
    "teff": ("t_eff",),
    "logg": ("log_g",),
    "fe_h": ("feh", "[fe/h]"),
    "alpha_m": ("alpham", "[alpha/m]"),
    "a_k": ("ak", "a_ks", "ak_targ"),
    "flux": ("xp", "xp_flux"),
    "flux_error": ("xp_error", "xp_flux_error", "flux_err", "e_flux"),
}
ERROR_NAMES = {
    "j_m": ("j_msigcom", "j_cmsig"),
    "h_m": ("h_msigcom", "h_cmsig"),
    "ks_m": ("ks_msigcom", "k_msigcom", "k_cmsig"),
}
# Gaia gives no errors of magnitudes but the ratio of flux and error: sigma = 2.5 / ln 10 / ratio.
RATIOS = {f"phot_{band}_mean_mag": f"phot_{band}_mean_flux_over_error" for band in ("g", "bp", "rp")}
KEYS = (
    "source_id",
    "gaia_source_id",
    "dr3_source_id",
    "designation",
    "apogee_id",
    "key",
    "id",
    "name",
    "star",
    "object",
)
MAG_PER_LN = 2.5 / np.log(10)
# Numbers that tables have where there is no value. Only those that no kind can have are taken for that.
PLACEHOLDERS = np.array(
    [s * v for s in (1, -1) for v in (99, 99.9, 99.99, 99.999, 999, 999.9, 999.99, 9999, 9999.99)] + [1e20]
)
MAGNITUDE_RANGE = (-30.0, 50.0)
CLOSE = 0.8  # of 1: so alike must two names be for a suggestion


@dataclasses.dataclass(frozen=True)
class Column:
    """A column as it came: values of any type, perhaps masked, and the text of its unit."""

    values: np.ndarray
    unit: str = ""


@dataclasses.dataclass(frozen=True)
class Roles:
    """Which column, and in which unit if the caller says it, serves as what; and the columns that serve as nothing."""

    used: dict[str, tuple[str, str | None]]
    unused: tuple[str, ...]


def assign(names: Iterable[str], vocabulary: Vocabulary, columns: Mapping | None = None) -> Roles:
    """The roles of the columns `names`: kinds, `e_` kinds, magnitudes and their errors, "flux", "flux_error".

    `columns`: role to the name of a column, to `(name, unit)`, or to None for a role that no column is to have.
    **Raises:** `TokenError` for a role or a column that there is not, with suggestions.
    """
    names = list(names)
    wanted = _roles_of(vocabulary)
    used: dict[str, tuple[str, str | None]] = {}
    spelt: dict[str, str] = {}
    for name in names:  # an exact spelling comes before one in other letters
        spelt[_plain(name)] = name if name == _plain(name) else spelt.get(_plain(name), name)
    chosen = _chosen(columns or {}, wanted, names)
    taken = {name for name, _ in chosen.values() if name is not None}
    for role, others in wanted.items():
        if role in chosen:
            if chosen[role][0] is not None:
                used[role] = chosen[role]
            continue
        found = [spelt[o] for o in others if o in spelt and spelt[o] not in taken]
        if found:
            used[role] = (found[0], None)
            taken.add(found[0])
    return Roles(used, tuple(name for name in names if name not in {n for n, _ in used.values()}))


def _chosen(columns, wanted, names) -> dict:
    chosen = {}
    for role, given in columns.items():
        if role not in wanted:
            raise TokenError(
                f"The column map names '{role}', which is nothing that a column can hold.{suggestion(role, wanted)} It can be: "
                f"{_some(r for r in wanted if not r.startswith('e_'))}; and 'e_' before a name for its errors."
            )
        name, unit = given if isinstance(given, tuple | list) else (given, None)
        if name is not None and name not in names:
            raise TokenError(
                f"The column map takes '{role}' from the column '{name}', which is not there.{suggestion(name, names)} The "
                f"columns are: {_some(names)}."
            )
        chosen[role] = (name, unit)
    return chosen


def _roles_of(vocabulary) -> dict[str, tuple[str, ...]]:
    """Every role and the names, in lower case, of columns that have it without a map."""
    roles = {}
    quantities = [*vocabulary.names, *MAGNITUDES]
    for name in dict.fromkeys(quantities):
        values = (name.lower(), *OTHER_NAMES.get(name, ()))
        roles[name] = values
        around = [f(v) for v in values for f in _ERRORS]
        roles[f"e_{name}"] = (*ERROR_NAMES.get(name, ()), *around)
        if name in RATIOS:
            roles[RATIOS[name]] = (RATIOS[name],)
    for name in ("flux", "flux_error"):
        roles[name] = (name, *OTHER_NAMES[name])
    return roles


_ERRORS = ("e_{}".format, "{}_error".format, "{}_err".format, "{}_sigma".format, "sigma_{}".format, "{}_unc".format)


def _plain(name) -> str:
    return re.sub(r"[\s\-]+", "_", str(name).strip().lower())


def find_key(names: Iterable[str], key: str | None = None) -> str | None:
    """The column that identifies the objects: `key`, or the first of the usual names that is there."""
    names = list(names)
    if key is not None:
        if key not in names:
            raise TokenError(f"There is no column '{key}'.{suggestion(key, names)} The columns are: {_some(names)}.")
        return key
    plain = {_plain(name): name for name in reversed(names)}
    return next((plain[k] for k in KEYS if k in plain), None)


def unused_note(unused: Iterable[str], vocabulary: Vocabulary, used: Mapping) -> str:
    """A sentence on columns that are kept aside, with what near names would mean."""
    unused = list(unused)
    if not unused:
        return ""
    known = {name: role for role, names in _roles_of(vocabulary).items() if role not in used for name in names}
    near = []
    for name in unused:
        close = difflib.get_close_matches(_plain(name), known, n=1, cutoff=CLOSE)
        near += [f"did '{name}' mean '{close[0]}'?"] if close else []
    return f"columns kept aside: {_some(unused)}" + (f" ({' '.join(near[:5])})" if near else "")


def _some(names: Iterable[str], shown: int = 20) -> str:
    names = list(names)
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def numbers(column: Column, name: str) -> np.ndarray:
    """`(n,)` floats; NaN for what is masked, empty or "null". **Raises:** `TokenError` for other texts and for vectors."""
    values = np.ma.asarray(column.values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise TokenError(
            f"The column '{name}' has entries of the shape {values.shape[1:]}; single numbers are expected."
        )
    if values.dtype.kind in "OSU":
        return np.array([_number(v, name) for v in np.ma.filled(values.astype(object), None)], dtype=float)
    if values.dtype.kind not in "biuf":
        raise TokenError(f"The column '{name}' holds {values.dtype}; numbers are expected.")
    return np.ma.filled(values.astype(float), np.nan)


EMPTY = {"", "null", "none", "nan", "--", "n/a", "na", "<na>", "...", "masked"}


def _number(value, name) -> float:
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    if value is None or text.strip().lower() in EMPTY:
        return np.nan
    try:
        return float(text)
    except ValueError:
        raise TokenError(
            f"The column '{name}' holds '{text[:40]}'; numbers are expected. Leave it out with a column map, or correct it."
        ) from None


def in_unit(values, unit: str | None, wanted: str, name: str, role: str) -> np.ndarray:
    """Values of a column converted from the text `unit` to `wanted`; as they are where no unit is given.

    **Raises:** `TokenError` that names column and units where there is no conversion.
    """
    import astropy.units as u

    text = str(unit or "").strip()
    if not text or text == wanted or text.lower() in ("-", "none", "unknown"):
        return values
    logarithmic = re.match(r"\W*(dex|log|\[)", text.lower())
    if wanted == "dex" and logarithmic:
        return values
    known = None if logarithmic else parse_unit(text)
    if known is not None and wanted != "dex":
        try:
            return known.to(u.Unit(wanted), values)
        except u.UnitsError:
            pass
    expected = f"'{wanted}' is expected" if wanted else "a number without unit is expected"
    raise TokenError(
        f"The column '{name}' has the unit '{text}'; {expected}. Convert it, or, if the unit in the table is wrong, say so in "
        f"the column map: {{'{role}': ('{name}', '{wanted}')}}."
    )


def without_placeholders(values, lower, upper) -> tuple[np.ndarray, int]:
    """Values with NaN for numbers such as -9999 that lie outside of `lower` to `upper`, and how many these are."""
    with np.errstate(invalid="ignore"):
        outside = ~(
            (values >= -np.inf if lower is None else values >= lower) & (values <= (np.inf if upper is None else upper))
        )
    found = np.isin(values, PLACEHOLDERS) & outside
    found |= np.isin(values, -PLACEHOLDERS[-1:])
    return np.where(found, np.nan, values), int(found.sum())
