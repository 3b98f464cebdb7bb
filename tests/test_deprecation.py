"""Old names that stay for one release."""

import inspect

import pytest

from emuinfer.deprecation import OLD_MODULES, renamed_arguments, renamed_names


@renamed_arguments(sampling="pixels_per_fwhm")
def seen(resolution, *, pixels_per_fwhm=3.0):
    """What it got."""
    return resolution, pixels_per_fwhm


def test_old_arguments_are_passed_on_with_a_warning_at_the_caller():
    assert seen(1, pixels_per_fwhm=2) == (1, 2)
    with pytest.warns(DeprecationWarning, match="sampling= of seen is now pixels_per_fwhm=") as caught:
        assert seen(1, sampling=2) == (1, 2)
    assert caught[0].filename == __file__
    with pytest.raises(TypeError, match="got sampling= and pixels_per_fwhm="):
        seen(1, sampling=2, pixels_per_fwhm=2)
    assert list(inspect.signature(seen).parameters) == ["resolution", "pixels_per_fwhm"] and seen.__doc__


def test_old_names_of_a_module():
    find = renamed_names("here", {"looked": seen})
    with pytest.warns(DeprecationWarning, match=r"here\.looked is now .*test_deprecation\.seen") as caught:
        assert find("looked") is seen
    assert caught[0].filename == __file__
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        find("other")


def test_the_link_was_no_depth():
    from emuinfer import emulators

    with pytest.warns(
        DeprecationWarning, match=r"emulators\.depth_from_flux is now emuinfer\.emulators\.base\.to_link"
    ):
        assert emulators.depth_from_flux is emulators.to_link
    with pytest.warns(DeprecationWarning, match="is now"):
        from emuinfer.emulators import flux_from_depth
    assert flux_from_depth is emulators.from_link


def test_old_modules_are_found_with_a_warning_at_the_import():
    with pytest.warns(
        DeprecationWarning, match=r"module emuinfer\.posterior is now emuinfer\.posteriors\.pos"
    ) as caught:
        from emuinfer.posterior import draws_of
    assert caught[0].filename == __file__
    from emuinfer.posteriors import draws_of as today

    assert draws_of is today
    with pytest.warns(DeprecationWarning, match=r"emuinfer\.observations"):
        from emuinfer.spectra.observation import Observation
    with pytest.warns(DeprecationWarning, match=r"emuinfer\.observations\.stack"):
        import emuinfer.survey_input as old
    from emuinfer import observations

    assert Observation is observations.Observation and old.as_stack.__module__ == "emuinfer.observations.stack"
    with pytest.raises(ImportError, match="nothing"):
        from emuinfer.posterior import nothing  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match="posteror"):
        import emuinfer.posteror  # noqa: F401
    with pytest.warns(DeprecationWarning, match=r"likelihoods\.StellarSpectrum is now"):
        from emuinfer.likelihoods import StellarSpectrum
    assert StellarSpectrum.__name__ == "StellarModel"


@pytest.mark.filterwarnings("ignore:The module:DeprecationWarning")
@pytest.mark.parametrize("name", OLD_MODULES)
def test_every_old_module_leads_to_modules_that_there_are(name):
    import importlib

    module = importlib.import_module(f"emuinfer.{name}")
    assert module.__doc__ == f"Now emuinfer.{OLD_MODULES[name].split()[0]}."
