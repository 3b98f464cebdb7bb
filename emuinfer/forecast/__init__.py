"""Cramér–Rao bounds: of an observation, of an instrument, maps, design of an observation."""

from .bounds import Bounds as Bounds
from .cramer_rao import cramer_rao as cramer_rao
from .cramer_rao import forecast_bounds as forecast_bounds
from .design import Camera as Camera
from .design import Design as Design
from .design import optimal_design as optimal_design
from .exposure import Exposure as Exposure
from .figures import plot_bounds as plot_bounds
from .figures import plot_information as plot_information
from .figures import plot_map as plot_map
from .figures import plot_windows as plot_windows
from .forecast import Forecast as Forecast
from .instruments import Arm as Arm
from .instruments import Instrument as Instrument
from .instruments import list_instruments as list_instruments
from .instruments import load_instrument as load_instrument
from .maps import BoundsMap as BoundsMap
from .maps import against_resolution as against_resolution
from .maps import against_snr as against_snr
from .maps import best_window as best_window
from .maps import bounds_map as bounds_map
from .maps import map_teff_logg as map_teff_logg
from .maps import snr_needed as snr_needed
from .observed import instrument_model as instrument_model
from .observed import model_bounds as model_bounds
