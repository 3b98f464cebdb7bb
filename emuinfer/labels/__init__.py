"""What a star is described by: names, units, bounds, designs."""

from .design import sobol_design as sobol_design
from .space import OPTICAL_FGK as OPTICAL_FGK
from .space import LabelSpace as LabelSpace
