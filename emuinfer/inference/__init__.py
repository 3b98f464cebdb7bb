"""From a model to a verified posterior of one star."""

from .config import SURVEY as SURVEY
from .config import SamplingConfig as SamplingConfig
from .fit import Fit as Fit
from .fit import find_optimum as find_optimum
from .run import sample as sample
from .verify import ImportanceCheck as ImportanceCheck
from .verify import importance_check as importance_check
