"""The frame of velocity of a spectrum's wavelengths, from its header. Host only.

`meta["frame"]` is "barycentric", "heliocentric", "geocentric", "topocentric" or "rest" (of the star), and absent where
nobody says. `meta["barycentric_correction"]` is the velocity in km/s that is added to one measured in a topocentric frame.
"""

# SPECSYS: FITS paper III (Greisen et al. 2006, A&A 446, 747), table 12. VEL_TYPE: PypeIt. HELIO: LAMOST, true if corrected.
SPECSYS = {"TOPO": "topocentric", "GEOC": "geocentric", "BARY": "barycentric", "HELI": "heliocentric", "SOUR": "rest"}
FITS_NAMES = {
    "topocentric": "TOPOCENT",
    "geocentric": "GEOCENTR",
    "barycentric": "BARYCENT",
    "heliocentric": "HELIOCEN",
    "rest": "SOURCE",
}
CORRECTIONS = (
    "ESO QC VRAD BARYCOR",  # UVES, X-shooter, FLAMES
    "ESO QC BERV",  # ESPRESSO, and HARPS reduced by its pipeline
    "ESO DRS BERV",
    "ESO DRS BARYCORR",  # FEROS
    "TNG DRS BERV",
    "ESO QC VRAD HELICOR",
    "BERV",
    "BARYCORR",
    "HELIOVEL",
    "VHELIO_CORR",
    "HELIO_RV",
    "BC",  # APOGEE
)


def frame_of(header) -> str | None:
    """The frame that a header's `SPECSYS`, `VEL_TYPE` or `HELIO` names, or None."""
    header = {str(k).upper(): v for k, v in dict(header).items()}
    for key in ("SPECSYS", "VEL_TYPE"):
        frame = SPECSYS.get(str(header.get(key, "")).strip().upper()[:4])
        if frame is not None:
            return frame
    if isinstance(header.get("HELIO"), bool):
        return "heliocentric" if header["HELIO"] else "topocentric"
    return None


def correction_of(header) -> float | None:
    """The barycentric (or heliocentric) correction in km/s that a header gives, or None."""
    header = {str(k).upper(): v for k, v in dict(header).items()}
    values = [header.get(k) for k in CORRECTIONS]
    return next((float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)), None)


def in_frame(fields: dict, frame: str | None, header=()) -> dict:
    """`fields` with the frame in `meta`, and a note on what a velocity is relative to where that is not the barycentre."""
    notes = list(fields.get("notes", ()))
    meta = dict(fields.get("meta", {}))
    if frame is not None:
        meta["frame"] = frame
    if frame == "topocentric":
        correction = correction_of(header)
        text = "wavelengths in the observer's frame (topocentric): velocities are relative to the observatory"
        if correction is not None:
            meta["barycentric_correction"] = correction
            text += f"; add {correction:+.3f} km/s, the barycentric correction in the header"
        notes.append(text)
    elif frame == "rest":
        notes.append(
            "wavelengths in the star's rest frame, as its archive shifted them: velocities are relative to that"
        )
    return {**fields, "meta": meta, "notes": tuple(notes)}
