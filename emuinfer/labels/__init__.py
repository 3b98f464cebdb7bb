"""What a star is described by: names, units, bounds, designs."""

from .check import label_rows as label_rows
from .check import require_same_labels as require_same_labels
from .design import sobol_design as sobol_design
from .space import OPTICAL_FGK as OPTICAL_FGK
from .space import LabelSpace as LabelSpace
from .space import complete_labels as complete_labels
from .space import solar_labels as solar_labels
from .space import star_labels as star_labels
