"""Many stars of one instrument: `fit_many`."""

from ..deprecation import renamed_names
from ..inference import SamplingConfig
from .run import fit_many as fit_many
from .summary import FLAGS as FLAGS
from .summary import SERIOUS as SERIOUS
from .summary import flag_names as flag_names

__getattr__ = renamed_names(__name__, {"Settings": SamplingConfig})
