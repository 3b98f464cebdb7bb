"""What a star is described by: names, units, bounds, designs; and the windows of wavelength that are known."""

from .check import label_rows as label_rows
from .check import require_same_labels as require_same_labels
from .design import sobol_design as sobol_design
from .space import LabelSpace as LabelSpace
from .space import complete_labels as complete_labels
from .space import solar_labels as solar_labels
from .space import star_labels as star_labels
from .windows import OPTICAL_FGK as OPTICAL_FGK
from .windows import WHOLE_OPTICAL as WHOLE_OPTICAL
from .windows import WINDOWS as WINDOWS
from .windows import Window as Window
from .windows import default_window as default_window
from .windows import window as window
from .windows import window_of as window_of
