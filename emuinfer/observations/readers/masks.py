"""Which pixels the columns of a table say to leave out, whichever sense a mask has. Host only."""

import numpy as np

from ...errors import ObservationError, suggestion
from .choices import Choices
from .units import words

# Non-zero marks a pixel to leave out. ESO phase 3: QUAL; SDSS: and_mask; LAMOST: ANDMASK, PIXMASK; SDSS-V: pixel_flags.
BAD = words(
    "mask quality qual dq and_mask andmask pixmask pixel_flags pixel_mask pixelmask flag flags qflag quality_flag dqflag "
    "bad badpix bad_pixel badpixel bad_pix bad_mask badmask bpm masked"
)
# Non-zero marks a pixel to use.
GOOD = words(
    "good goodpix good_pixel goodpixel good_pix good_mask goodmask gpm use used use_pixel valid ok fitmask fit_mask"
)


def mask_of(table: dict, header, choices: Choices, notes) -> np.ndarray | None:
    """True where a pixel is to be left out, `(n_pix,)`; `None` if the table has no mask.

    `choices.mask_column` names the column, with a "!" before its name if 1 marks good pixels. Else columns are known by
    name (`BAD`, `GOOD`), and several count together; PypeIt's `mask`, known by its header, is 1 for good pixels.
    """
    if choices.mask_column is not None:
        text = str(choices.mask_column).strip()
        name, is_good = text.removeprefix("!").strip(), text.startswith("!")
        if name not in table:
            raise ObservationError(
                f"There is no mask column '{name}'.{suggestion(name, table)} The columns are: {', '.join(table)}."
            )
        chosen = {name: is_good}
    else:
        chosen = {n: n.lower() in GOOD for n in table if n.lower() in (*BAD, *GOOD)}
        if _is_pypeit(header):
            chosen = {n: True if n.lower() == "mask" else good for n, good in chosen.items()}
    masks = [_left_out(table[n], n, is_good) for n, is_good in chosen.items()]
    good = [n for n, is_good in chosen.items() if is_good]
    if good and choices.mask_column is None:
        notes.append(f"the mask '{good[0]}' is taken to mark good pixels with 1")
    if len(masks) > 1:
        notes.append(f"pixels are left out by any of the masks {', '.join(chosen)}; mask_column= chooses one")
    return np.any(masks, axis=0) if masks else None


def _left_out(values, name, is_good) -> np.ndarray:
    values = np.ma.asarray(values)
    undefined = np.ma.getmaskarray(values)
    values = values.data
    if values.dtype.kind in "US":
        values = np.char.strip(np.char.upper(values.astype(str)))
        values = np.isin(values, ["T", "TRUE", "1", "Y", "YES"])
    elif values.dtype.kind not in "biuf":
        raise ObservationError(f"The mask column '{name}' holds neither numbers nor truth values.")
    elif values.dtype.kind == "f":
        undefined = undefined | ~np.isfinite(values)
    result = undefined | ((values == 0) if is_good else (values != 0))
    return result.any(axis=tuple(range(1, result.ndim))) if result.ndim > 1 else result  # one column per bit


def _is_pypeit(header) -> bool:
    header = {str(k).upper() for k in dict(header)} | {str(dict(header).get("DMODCLS", ""))}
    return bool(header & {"PYP_SPEC", "OneSpec", "SpecObj", "SpecObjs"})
