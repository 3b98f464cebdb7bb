"""Old names of functions, arguments and modules, which stay for one release with a `DeprecationWarning`."""

import functools
import importlib
import importlib.machinery
import types
import warnings

# Old module -> the modules that have its names today, in which they are looked for in this order.
OLD_MODULES = {
    "bounds": "forecast.cramer_rao forecast.fisher forecast forecast.parameters labels.space",
    "bounds_core": "forecast.bounds forecast.fisher forecast",
    "bounds_emulator": "forecast.emulator_floor",
    "calibration_mock": "calibration.mock",
    "calibration_report": "calibration.report",
    "calibration_sbc": "calibration.check calibration",
    "calibration_statistics": "calibration.statistics",
    "density": "likelihoods.density",
    "emulators.controls": "emulators.baselines.regression labels.features",
    "emulators.controls_gp": "emulators.baselines.gaussian_process labels.features",
    "emulators.controls_pca": "emulators.baselines.components",
    "emulators.controls_pixels": "emulators.baselines.pixels wavelengths.pixels wavelengths.uniform emulators.network",
    "emulators.encoding": "emulators.wavelength_encoding wavelengths.interpolation",
    "forecast_design": "forecast.design",
    "forecast_exposure": "forecast.exposure",
    "forecast_maps": "forecast.maps",
    "grids.convert": "grids.import_arrays",
    "grids.design": "labels.design",
    "grids.foreign": "grids.import_spectra grids.import_fields grids.import_arrays",
    "grids.foreign_files": "grids.import_readers grids.import_fields",
    "instruments": "forecast.instruments",
    "pareto": "posteriors.pareto",
    "plotting_calibration": "calibration.figures",
    "plotting_forecast": "forecast.figures",
    "posterior": "posteriors.posterior posteriors.diagnose posteriors.pareto posteriors",
    "spectra": "observations wavelengths.medium",
    "spectra.banded": "forward.banded",
    "spectra.broadening": "forward.broadening",
    "spectra.checks": "observations.checks",
    "spectra.columns": "observations.readers.columns observations.readers",
    "spectra.archives": "observations.readers observations.readers.products.apogee observations.readers.products.desi",
    "spectra.continuum": "forward.continuum",
    "spectra.correlation": "forward.noise_correlation",
    "spectra.doppler": "observations.cross_correlation constants wavelengths.uniform wavelengths",
    "spectra.examples": "observations.examples",
    "spectra.lsf": "forward.lsf",
    "spectra.medium": "wavelengths.medium",
    "spectra.observation": "observations.observation",
    "spectra.operator": "forward.operator",
    "spectra.quality": "observations.quality",
    "spectra.readers": "observations.readers",
    "survey_batch": "survey.batch survey samplers.lockstep inference.steps",
    "survey_files": "survey.files files",
    "survey_input": "observations.stack",
    "survey_model": "survey.model",
    "survey_statistics": "survey.summary posteriors.convergence",
    "survey_workers": "survey.workers",
    "synthesis.windows": "synthesis.line_windows",
    "training.controls": "emulators.training.baselines",
    "training.controls_gp": "emulators.training.gaussian_process",
    "training.controls_kernel": "emulators.training.gp_likelihood",
    "training.coverage": "emulators.training.coverage",
    "training.data": "emulators.training.data training.batches training.checkpoint",
    "training.endless": "emulators.training.endless",
    "training.evaluate": "emulators.training.evaluate",
    "training.recipe": "emulators.training.start",
    "training.train": "emulators.training.train training.loop",
    "training.uncertainty": "emulators.training.uncertainty",
}


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


class OldModules:
    """Finds the modules of `OLD_MODULES`, for `sys.meta_path`: empty ones that look their names up in those of today."""

    def find_spec(self, fullname, path=None, target=None):
        package, _, old = fullname.partition(".")
        if package != __package__ or old not in OLD_MODULES:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=old == "spectra")  # type: ignore[arg-type]

    def create_module(self, spec):
        """Python's own."""

    def exec_module(self, module: types.ModuleType) -> None:
        """Import the modules of today, and warn."""
        found = [f"{__package__}.{name}" for name in OLD_MODULES[module.__name__.partition(".")[2]].split()]
        today = [importlib.import_module(name) for name in found]

        def look_up(name):
            for one in () if name.startswith("_") else today:
                if hasattr(one, name):
                    return getattr(one, name)
            raise AttributeError(f"module '{module.__name__}', which is now {found[0]}, has no attribute '{name}'")

        setattr(module, "__getattr__", look_up)  # noqa: B010 - which a type checker takes for the class's
        module.__doc__ = f"Now {found[0]}."
        warn_old(
            f"The module {module.__name__}", found[0]
        )  # at the line that imports: Python leaves its own machinery out
