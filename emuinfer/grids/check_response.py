"""Checks of how spectra respond to labels: labels that do nothing, and steps where there should be none."""

import numpy as np

from .check_report import FAIL, OK, SKIPPED, WARN, Check

PROBES = 40  # columns of noise beside the labels; the largest response to them is what chance gives
ALIVE = 1.4  # times the largest response to noise
COMPONENTS = 8
# Sixty sound grids of 150 to 600 LTE spectra and 12 labels reached 3.0 to 4.4 as the largest of ten thousand
# contrasts. With few labels the smooth model is so good that kinks of linear interpolation show, hence a limit on the
# size too.
STEP_T, STEP_FAIL_T = 5.5, 7.0
MAX_SCANS = 60
STEP_SIZE = 5e-4  # of the flux, root mean square over the pixels; half of what an emulator should reach
WINDOWS = (0.1, 0.25)  # half-widths of the windows in which single steps are looked for, in ranges of the label
# Spacings of published model grids: MARCS, ATLAS9, PHOENIX; any other label in its own unit.
SPACINGS = {"teff": (50.0, 100.0, 200.0, 250.0, 500.0, 1000.0), None: (0.1, 0.2, 0.25, 0.4, 0.5, 1.0)}


def design(scaled) -> np.ndarray:
    """Regressors (n, m) for labels (n, k) scaled to about [-1, 1]: 1, the labels, and as many second-order terms as the
    number of rows allows. Columns 1 to k are the labels."""
    n, k = scaled.shape
    columns = [np.ones((n, 1)), scaled]
    if n > 3 * (1 + 2 * k):
        columns.append(scaled**2 - 1 / 3)
    if n > 3 * (1 + k) * (k + 2) / 2:
        columns += [scaled[:, i : i + 1] * scaled[:, i + 1 :] for i in range(k - 1)]
    return np.concatenate(columns, axis=1)


def scale(labels) -> np.ndarray:
    """Labels (n, k) mapped to [-1, 1] over their own range; constant labels become zero."""
    low, high = labels.min(axis=0), labels.max(axis=0)
    return (2 * labels - low - high) / np.where(high > low, high - low, np.inf)


def t_values(columns, values) -> tuple[np.ndarray, np.ndarray]:
    """Least squares of `values` (n, p) on `columns` (n, m): coefficients and their t values, both (m, p)."""
    u, s, vt = np.linalg.svd(columns, full_matrices=False)
    keep = s > 1e-8 * s[0]
    u, s, vt = u[:, keep], s[keep], vt[keep]
    projected = u.T.astype(values.dtype) @ values
    coefficients = (vt.T / s) @ projected
    left = np.einsum("np,np->p", values, values, dtype=float) - np.einsum("mp,mp->p", projected, projected, dtype=float)
    variance = np.maximum(left, 1e-12 * len(values)) / (len(values) - len(s))
    spread = np.sqrt(((vt.T / s) ** 2).sum(axis=1))
    spread[spread < 1e-9] = np.inf  # a column of zeros, such as a label that never changes
    return coefficients, coefficients / (spread[:, None] * np.sqrt(variance))


def check_dead(grid, sample) -> Check:
    """Labels without a response: no pixel follows the label better than it follows columns of noise.

    Spectra (as log opacity) are regressed on the labels to second order and on `PROBES` columns of noise, which are the
    labels' own columns shuffled.
    """
    names, labels = grid.label_space.names, scale(sample.labels)
    rng = np.random.default_rng(0)
    columns = design(labels)
    changing = np.flatnonzero(np.ptp(labels, axis=0) > 0)
    probes = np.stack([rng.permutation(labels[:, changing[i % len(changing)]]) for i in range(PROBES)], axis=1)
    probes = probes[:, : max(0, (len(labels) - columns.shape[1]) // 3)]
    values = sample.opacity()
    values -= values.mean(axis=0)
    t = np.abs(t_values(np.concatenate([columns, probes], axis=1), values)[1])
    noise = float(t[columns.shape[1] :].max()) if probes.shape[1] else np.nan
    response = t[1 : 1 + len(names)].max(axis=1)
    constant = np.ptp(sample.labels, axis=0) == 0
    tied = ~constant & (_tied(labels) > 0.999)
    details = {"noise": noise, "response": {n: float(r) for n, r in zip(names, response)}}
    if not np.isfinite(noise):
        return Check(
            "dead labels", SKIPPED, f"{len(labels)} spectra are too few for {len(names)} labels", details=details
        )
    dead = [n for n, r, c, d in zip(names, response, constant, tied) if not c and not d and r < ALIVE * noise]
    weakest = min((r, n) for n, r in zip(names, response))
    found = []
    if dead:
        found.append(f"no pixel responds to {', '.join(dead)} more than to noise")
    if constant.any():
        found.append(f"{', '.join(np.array(names)[constant])} never changes")
    if tied.any():
        found.append(f"{', '.join(np.array(names)[tied])} cannot be told apart, as they follow the other labels")
    if not found:
        text = (
            f"all {len(names)} labels move the spectra; the weakest, {weakest[1]}, {weakest[0] / noise:.1f} times as "
        )
        return Check("dead labels", OK, text + "much as noise does", details=details)
    remedy = "Leave the label out, or find out why the code that made the spectra ignores it."
    return Check("dead labels", FAIL if dead else WARN, "; ".join(found), remedy, {**details, "dead": dead})


def _tied(labels):
    """R² of each label on the others, (k,)."""
    out = []
    for i in range(labels.shape[1]):
        rest = np.concatenate([np.ones((len(labels), 1)), np.delete(labels, i, axis=1)], axis=1)
        fit = rest @ np.linalg.lstsq(rest, labels[:, i], rcond=None)[0]
        out.append(1 - ((labels[:, i] - fit) ** 2).sum() / max((labels[:, i] ** 2).sum(), 1e-300))
    return np.array(out)


# Steps


def check_steps(grid, sample) -> Check:
    """Steps along a label, such as a nearest model atmosphere taken instead of an interpolated one leaves.

    They are looked for in scans of one label, if the grid has some, and in leave-one-out residuals of a smooth model.
    """
    order = (FAIL, WARN, OK, SKIPPED)
    parts = [_check_scans(grid), _check_residuals(grid, sample)]
    said = [p for p in parts if p.verdict != SKIPPED] or parts[1:]
    verdict = min((p.verdict for p in said), key=order.index)
    remedy = _STEP_REMEDY if verdict in (WARN, FAIL) else ""
    details = {"scans": parts[0].details, "residuals": parts[1].details}
    return Check("steps", verdict, "; ".join(p.found for p in said), remedy, details)


def find_scans(labels, points: int = 7) -> list[tuple[int, np.ndarray]]:
    """`(label, rows sorted by it)` of all sets of at least `points` rows that differ in one label only."""
    found = []
    for i in range(labels.shape[1]):
        rest = np.round(np.delete(labels, i, axis=1), 9)
        _, group, count = np.unique(rest, axis=0, return_inverse=True, return_counts=True)
        for g in np.flatnonzero(count >= points):
            rows = np.flatnonzero(group.ravel() == g)
            rows = rows[np.argsort(labels[rows, i], kind="stable")]
            if (np.diff(labels[rows, i]) > 0).all():
                found.append((i, rows))
    return found


def _check_scans(grid):
    """A step is a slope at least five times those on both sides of it."""
    usable = np.flatnonzero(np.isfinite(grid.labels).all(axis=1))
    scans = find_scans(grid.labels[usable])
    if len(scans) > MAX_SCANS:
        scans = [scans[k] for k in np.linspace(0, len(scans) - 1, MAX_SCANS).astype(int)]
    names = grid.label_space.names
    worst: dict[str, tuple] = {}
    for i, rows in scans:
        x = grid.labels[usable[rows], i]
        change = np.sqrt((np.diff(np.asarray(grid.flux[usable[rows]], float), axis=0) ** 2).mean(axis=1))
        slope = change / np.diff(x)
        for k in range(1, len(slope) - 1):
            beside = max(slope[k - 1], slope[k + 1])
            size = change[k] - beside * (x[k + 1] - x[k])
            if slope[k] > 5 * beside and size > STEP_SIZE and size > worst.get(names[i], (0,))[0]:
                worst[names[i]] = float(size), float(x[k]), float(x[k + 1])
    details = {"scans": len(scans), "steps": {name: list(step) for name, step in worst.items()}}
    if not scans:
        return Check("steps", SKIPPED, "no scans of one label", details=details)
    if not worst:
        scanned = ", ".join(n for i, n in enumerate(names) if any(i == j for j, _ in scans))
        return Check("steps", OK, f"{len(scans)} scans along {scanned} are smooth", details=details)
    found = "; ".join(
        f"scan of {name}: the flux jumps by {size:.2g} (rms) from {a:g} to {b:g}"
        for name, (size, a, b) in worst.items()
    )
    return Check("steps", FAIL, found, details=details)


_STEP_REMEDY = (
    "Interpolate between the model atmospheres instead of taking the nearest, and do not join grids of different codes."
)


def _check_residuals(grid, sample):
    names, n = grid.label_space.names, len(sample.labels)
    free = [i for i in range(len(names)) if len(np.unique(sample.labels[:, i])) > 20]
    if n < 100 or not free:
        return Check("steps", SKIPPED, f"needs scans of one label, or 100 spectra between the nodes; {n} spectra here")
    values = sample.opacity()
    residuals, components = smooth_residuals(scale(sample.labels), values)
    # d flux / d log opacity is -f (1 - f); its mean turns a jump in opacity into one in flux
    to_flux = np.mean(sample.flux * (1 - np.clip(sample.flux, 0, 1)), axis=0)
    best = []
    for i in free:
        contrasts, heights, places = step_contrasts(names[i], sample.labels[:, i])
        jumps, t = contrast_t(contrasts, residuals)
        k = int(np.abs(t).max(axis=1).argmax())
        jump = np.where(np.abs(t[k]) > 3, jumps[k] * heights[k], 0.0)
        size = float(np.sqrt(((jump @ components * to_flux) ** 2).mean()))
        best.append((float(np.abs(t[k]).max()), names[i], places[k], size))
    details = {name: {"t": t, "jump": size, "place": place} for t, name, place, size in best}
    steps = sorted((b for b in best if b[0] > STEP_T and b[3] > STEP_SIZE), reverse=True)
    if not steps:
        t_most, name, _, size = max(best)
        found = f"smooth along every label (the likeliest step, along {name}: {size:.1g} of the flux, t = {t_most:.1f})"
        return Check("steps", OK, found, details=details)
    found = "; ".join(f"{name}: {place}, flux jumps by {size:.1g} (rms, t = {t:.1f})" for t, name, place, size in steps)
    return Check("steps", FAIL if steps[0][0] > STEP_FAIL_T else WARN, found, details=details)


def smooth_residuals(scaled, values) -> tuple[np.ndarray, np.ndarray]:
    """Leave-one-out residuals (n, q) of the first principal components of `values` (n, p) about a smooth model, and the
    components (q, p).

    The model is a second-order polynomial plus a Gaussian process (Matérn 5/2) whose length scales are inverse to the
    labels' influence; of six common scales the one with the smallest leave-one-out error is taken. The residuals follow
    from the inverse of the covariance (Rasmussen & Williams 2006, eq. 5.12).
    """
    values = values - values.mean(axis=0)
    gram = (values @ values.T).astype(float)
    power, vectors = np.linalg.eigh(gram)
    q = min(COMPONENTS, len(power) - 1)
    vectors, power = vectors[:, ::-1][:, :q], np.sqrt(np.maximum(power[::-1][:q], 1e-12 * power[-1]))
    scores, components = vectors * power, (vectors.T @ values) / power[:, None]
    columns = design(scaled)
    coefficients = t_values(columns, scores)[0]
    influence = np.sqrt((coefficients[1 : 1 + scaled.shape[1]] ** 2).sum(axis=1))
    influence = np.maximum(influence / influence.max(), 0.03)
    basis = np.linalg.qr(columns)[0]
    scores = scores - basis @ (basis.T @ scores)
    best, out = np.inf, scores
    distance = np.sqrt(((scaled[:, None] * influence - scaled[None] * influence) ** 2).sum(axis=-1))
    for length in (0.3, 0.6, 1.2, 2.4, 4.8, 9.6):
        r = np.sqrt(5.0) * distance / length
        kernel = (1 + r + r**2 / 3) * np.exp(-r)
        inverse = np.linalg.inv(kernel + 1e-4 * np.eye(len(kernel)))
        left = (inverse @ scores) / np.diag(inverse)[:, None]
        error = (left**2).sum()
        if error < best:
            best, out = error, left
    return out, components


def contrast_t(contrasts, residuals) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of each contrast (n, m) in each column of `residuals` (n, q), and their t values, both (m, q).

    The variance is that of what the contrast leaves where it is not zero, so that it may differ from place to place
    (White 1980, Econometrica 48, 817); the five degrees of freedom of a step and a cubic are allowed for. As few points
    make large t values likely, t is given as the normal deviate of equal probability (Wallace 1959, Ann. Math. Statist.
    30, 1121), with as many degrees of freedom as the contrast has points of equal weight, less five.
    """
    second, fourth = (contrasts**2).sum(axis=0)[:, None], (contrasts**4).sum(axis=0)[:, None]
    n = (contrasts != 0).sum(axis=0)[:, None]
    b = contrasts.T @ residuals / second
    left = (contrasts**2).T @ residuals**2 - 2 * b * ((contrasts**3).T @ residuals) + b**2 * fourth
    t = b * second / np.sqrt(np.maximum(left, 1e-12 * second) * n / (n - 5))
    free = np.maximum(second**2 / fourth - 5, 3)
    return b, np.sign(t) * np.sqrt(free * np.log1p(t**2 / free)) * (8 * free + 1) / (8 * free + 3)


def step_contrasts(name, x) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Vectors (n, m) that pick out steps along a label with values `x` (n,), their heights (m,), and words for each.

    Staircases of the usual spacings, with steps at the nodes or half-way between them; and single steps at places all
    over the range. Each is orthogonal to cubic polynomials, the single ones within windows of `WINDOWS` around them, so
    that nothing smooth looks like a step.
    """
    span, centre = np.ptp(x), 0.5 * (x.max() + x.min())
    contrasts, heights, places = [], [], []
    for spacing in SPACINGS.get(name, SPACINGS[None]):
        if not span / 40 < spacing < span / 1.9:
            continue
        for offset, word in ((0.0, "half-way between"), (0.5, "at")):
            saw = x / spacing - offset - np.round(x / spacing - offset)
            contrasts.append(_without_cubic((x - centre) / span, saw, np.ones(len(x), bool)))
            heights.append(1.0)
            places.append(f"steps {word} the multiples of {spacing:g}")
    for window in WINDOWS:
        for place in np.linspace(x.min() + window * span, x.max() - window * span, 65):
            u = (x - place) / (window * span)
            inside = np.abs(u) < 1
            if min((inside & (u < 0)).sum(), (inside & (u > 0)).sum()) < 15:
                continue
            contrasts.append(_without_cubic(u, np.sign(u) * (1 - np.abs(u)), inside))
            heights.append(2.0)
            places.append(f"a step near {place:.4g}")
    return np.stack(contrasts, axis=1), np.array(heights), places


def _without_cubic(u, values, inside):
    out = np.zeros(len(u))
    powers = np.stack([u[inside] ** p for p in range(4)], axis=1)
    out[inside] = values[inside] - powers @ np.linalg.lstsq(powers, values[inside], rcond=None)[0]
    return out
