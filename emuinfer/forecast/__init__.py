"""Cramér–Rao bounds: of a model, of an instrument, maps, design of an observation."""

from .cramer_rao import cramer_rao as cramer_rao
from .exposure import Exposure as Exposure
from .forecast import Forecast as Forecast
