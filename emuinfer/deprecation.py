"""Old names of functions and arguments, which stay for one release with a `DeprecationWarning`."""

import functools
import warnings


def warn_old(old: str, new: str, *, stacklevel: int = 2) -> None:
    """Say that `old` is now `new`; `stacklevel` as of `warnings.warn`, seen from the function that calls this one."""
    warnings.warn(f"{old} is now {new}; the old form goes with the next release.", DeprecationWarning, stacklevel + 1)


def renamed_arguments(**names: str):
    """A decorator of a function with keyword arguments that had other names: `@renamed_arguments(old="new")`.

    The decorated function raises `TypeError` where both names of an argument are given.
    """

    def decorate(function):
        @functools.wraps(function)
        def call(*args, **keywords):
            for old in names.keys() & keywords.keys():
                new = names[old]
                if new in keywords:
                    raise TypeError(
                        f"{function.__qualname__} got {old}= and {new}=, which are one argument: give {new}=."
                    )
                warn_old(f"{old}= of {function.__qualname__}", f"{new}=")
                keywords[new] = keywords.pop(old)
            return function(*args, **keywords)

        return call

    return decorate


def renamed_names(module: str, names: dict):
    """A module's `__getattr__` for functions and classes that had other names: `names` maps the old to the new objects."""

    def __getattr__(name):
        if name not in names:
            raise AttributeError(f"module '{module}' has no attribute '{name}'")
        warn_old(f"{module}.{name}", f"{names[name].__module__}.{names[name].__qualname__}")
        return names[name]

    return __getattr__
