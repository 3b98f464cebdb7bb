"""ArviZ, imported quietly and only when it is needed."""

import warnings


def import_arviz():
    """The module `arviz`.

    ArviZ 0.23 announces its successor at the first import of a day, in the middle of whatever the user was doing. Both work here, so
    the notice says nothing that a reader of a fit could act on.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\s*ArviZ is undergoing a major refactor", FutureWarning)
        import arviz
    return arviz
