"""Air and vacuum, uniform grids."""

from .doppler import rest_wavelength as rest_wavelength
from .doppler import shift_wavelength as shift_wavelength
from .medium import convert_medium as convert_medium
from .uniform import VelocityGrid as VelocityGrid
from .uniform import log_grid as log_grid
