"""Simulation-based calibration: are the error bars of fits right?"""

from .check import calibrate as calibrate
