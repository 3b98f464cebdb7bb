"""Readers of spectra by format. Each gives keyword arguments for `Observation`."""

from .fits import read_arms as read_arms
from .read import count_orders as count_orders
from .read import read as read
from .spectrum import from_specutils as from_specutils
