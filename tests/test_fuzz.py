"""Some hundred random files, whole and damaged, for every reader; 10,000 are a benchmark: tests/benchmarks/fuzz.py."""

import fuzz
from hypothesis import HealthCheck, given, seed, settings


@seed(0)
@settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(fuzz.files())
def test_a_file_is_read_or_refused_in_words(tmp_path_factory, file):
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    fuzz.check(file, folder)
