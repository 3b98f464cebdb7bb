"""Simulation-based calibration: are the error bars of fits right?"""

from ..deprecation import renamed_names
from .check import Calibration as Calibration
from .check import check_coverage as check_coverage

__getattr__ = renamed_names(__name__, {"calibrate": check_coverage})
