"""From a model to a verified posterior of one star."""

from .config import SURVEY as SURVEY
from .config import SamplingConfig as SamplingConfig
from .goodness import Goodness as Goodness
from .goodness import judge as judge
from .proposals import Guide as Guide
from .refine import refine as refine
from .residuals import Residuals as Residuals
from .residuals import residuals_of as residuals_of
from .run import sample as sample
from .steps import Fit as Fit
from .steps import find_optimum as find_optimum
from .verify import ImportanceCheck as ImportanceCheck
from .verify import importance_check as importance_check
