"""Many stars: `fit_many`."""

from .batch import Settings as Settings
from .fit_many import fit_many as fit_many
