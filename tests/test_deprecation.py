"""Old names that stay for one release."""

import inspect

import pytest

from emuinfer.deprecation import renamed_arguments, renamed_names


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
