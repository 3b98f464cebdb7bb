"""Arrays read from files: damaged ones are named, with the remedy, and closed."""

import gc
import warnings

import numpy as np
import pytest

from emuinfer import files
from emuinfer.errors import EmuinferError, SamplingError


@pytest.mark.parametrize("content", [b"", b"no archive", None], ids=["empty", "foreign", "half"])
def test_damaged_arrays_are_named_and_closed(content, tmp_path):
    path = tmp_path / "a.npz"
    files.write_arrays(path, {"x": np.arange(1000)})
    np.testing.assert_array_equal(files.read_arrays(path)["x"], np.arange(1000))
    path.write_bytes(path.read_bytes()[:200] if content is None else content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of files left open
        with pytest.raises(SamplingError, match=r"a\.npz is damaged.*Make it anew"):
            files.read_arrays(path, SamplingError, "Make it anew.")
        gc.collect()


def test_arrays_of_python_objects_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([None]))
    with pytest.raises(EmuinferError, match="a.npz .*Object arrays"):
        files.read_arrays(tmp_path / "a.npz")


def test_a_half_written_part_of_a_survey_is_named(tmp_path):
    from emuinfer.survey.files import Folder

    folder = Folder(tmp_path / "survey", {"stars": 1})
    folder.save(0, {"teff": np.arange(1000.0)})
    folder.part(0).write_bytes(folder.part(0).read_bytes()[:500])
    with pytest.raises(SamplingError, match="part-000000.npz is damaged.*Delete it and run again"):
        folder.load(0)
