"""Figures that several rooms share, as PNG files, without a display and without touching the user's matplotlib."""

from .corner import plot_corner as plot_corner
from .figure import kept_settings as kept_settings
from .figure import label_text as label_text
from .fit import plot_fit as plot_fit
