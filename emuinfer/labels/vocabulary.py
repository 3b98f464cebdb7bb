"""What columns of results are called elsewhere: UCDs, descriptions, the scale of abundances. Host only.

UCD1+ 1.5 (IVOA Recommendation 2023, https://www.ivoa.net/documents/UCD1+). A UCD says what a number is, so that TOPCAT, Aladin
and the VO know it whatever its column is called.
"""

SOLAR_SCALE = "Asplund et al. 2009, ARA&A 47, 481"
KNOWN = {
    "teff": ("phys.temperature.effective", "effective temperature"),
    "logg": ("phys.gravity", "log10 of the surface gravity in cm/s2"),
    "fe_h": ("phys.abund.Fe", "iron abundance [Fe/H]"),
    "alpha_m": ("phys.abund", "abundance of alpha elements over metals [alpha/M]"),
    "a_k": ("phys.absorption;em.IR.K", "extinction in 2MASS Ks"),
    "vmic": ("phys.veloc.microTurb", "microturbulence"),
    "rv": ("spect.dopplerVeloc", "radial velocity in the frame of the spectrum"),
    "vsini": ("phys.veloc.rotat", "projected rotational velocity"),
    "vmac": ("phys.veloc", "macroturbulence"),
    "vbroad": ("spect.line.broad", "Gaussian broadening of lines"),
}
OTHERS = {  # columns beside the parameters
    "row": ("meta.record", "row of the input, from 0"),
    "name": ("meta.id;meta.main", "name of the star"),
    "flag": ("meta.code.qual", "bits of emuinfer.survey.FLAGS; 0 is good"),
    "covariance": ("stat.covariance", "covariance of the parameters, in the order of PARAMS"),
    "k_hat": ("stat.fit.param", "Pareto k-hat of the surrogate against the full emulator"),
    "chi2": ("stat.fit.chi2", "weighted chi2 per pixel"),
    "chi2_model": ("stat.fit.chi2", "weighted chi2 per pixel with all model errors"),
    "down_weighted": ("stat.value", "share of pixels with a weight below 0.5"),
    "acceptance": ("stat.value", "acceptance of the sampler"),
    "surrogate_error": ("stat.value", "largest error of the surrogate"),
    "in_domain": ("stat.probability", "share of the draws inside the emulator's domain"),
    "edge_distance": ("stat.value", "distance of the median from the domain's edge in half-widths, negative outside"),
    "goodness": ("meta.code.qual", "verdict on the fit"),
    "divergences": ("meta.number", "divergent transitions"),
    "repaired": ("meta.code", "the sampler was started anew"),
    "limit_lines": ("meta.note", "lines that decided the limits (Angstrom, at rest)"),
    "n_pixels": ("meta.number", "pixels used"),
    "snr": ("stat.snr", "median signal-to-noise ratio per pixel"),
    "seconds": ("time.duration", "time of the fit"),
    "problem": ("meta.note", "why a star was not fitted"),
}
STATISTICS = {  # of a parameter: suffix of its column to the UCD's second word and a description
    "sd": ("stat.stdev", "standard deviation of {}"),
    "q16": ("stat.min", "16 % quantile of {}"),
    "q84": ("stat.max", "84 % quantile of {}"),
    "mean": ("stat.mean", "mean of {}"),
    "median": ("stat.median", "median of {}"),
    "limit": ("stat.value", "95 % limit on {}, upper or lower as the column l_ says"),
}


def ucd_of(name: str) -> str:
    """The UCD of a parameter."""
    return _known(name)[0]


def description_of(name: str) -> str:
    """A few words on a parameter."""
    return _known(name)[1]


def column_facts(column: str, parameters) -> tuple[str, str]:
    """UCD and description of a column of results: of `parameters`, `parameter_statistic`, `e_parameter`, …; or empty."""
    if column in OTHERS:
        return OTHERS[column]
    if column.startswith("misfit_"):
        return "stat.fit.goodness", f"statistic '{column.removeprefix('misfit_')}' of the verdict on the fit"
    if column in parameters:
        return f"{ucd_of(column)};stat.median;meta.main", f"median of {description_of(column)}"
    for prefix, ucd, text in (
        ("e_", "stat.error;{}", "standard deviation of {}"),
        ("flag_", "meta.code.qual;{}", "bits of {}"),
        ("l_", "meta.code.error;{}", "limit on {}"),
    ):
        name = column.removeprefix(prefix)
        if column.startswith(prefix) and name in parameters:
            of = {
                "e_": description_of(name),
                "flag_": f"FLAGS that concern {name}; 0 is good",
                "l_": f"{name}: < or > where the data give one, ? where they say nothing, empty where it is measured",
            }[prefix]
            return ucd.format(ucd_of(name)), text.format(of)
    name, _, statistic = column.rpartition("_")
    if name in parameters and statistic in STATISTICS:
        word, text = STATISTICS[statistic]
        return f"{ucd_of(name)};{word}", text.format(description_of(name))
    if column.endswith(("_r_hat", "_ess")):
        what = "rank-normalised split R-hat" if column.endswith("_r_hat") else "bulk effective sample size"
        return ("stat.fit.goodness" if column.endswith("_r_hat") else "meta.number"), f"{what} (Vehtari et al. 2021)"
    return "", ""


def _known(name: str) -> tuple[str, str]:
    if name in KNOWN:
        return KNOWN[name]
    element, _, base = name.rpartition("_")
    if base in ("fe", "h") and 0 < len(element) <= 5:
        return "phys.abund", f"abundance [{element.capitalize()}/{base.capitalize()}]"
    if name.startswith("rv_offset"):
        return "spect.dopplerVeloc", "velocity of an arm relative to the first"
    if name == "log10_resolution":
        return "spect.resolution", "log10 of the resolving power"
    if name.startswith("log10_jitter"):
        return "stat.fit.param", "log10 of the noise beyond the errors, relative to the continuum"
    return "stat.fit.param", name
