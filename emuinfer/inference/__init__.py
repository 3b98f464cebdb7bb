"""From a model to a verified posterior."""

from .sample import find_optimum as find_optimum
from .sample import sample as sample
from .verify import importance_check as importance_check
