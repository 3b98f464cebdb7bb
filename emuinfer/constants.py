"""Constants of nature and of the field, each once. CODATA 2018 (Tiesinga et al. 2021, Rev. Mod. Phys. 93, 025010)."""

import math

SPEED_OF_LIGHT = 299_792.458  # km/s, exact (SI)
K_BOLTZMANN = 1.380649e-16  # erg/K, exact (SI)
EV_OVER_K = 11604.518  # K per eV
LN_SAHA = 35.42034  # ln[(2 pi m_e k)^(3/2) / h^3], cm^-3 K^-3/2
FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))  # of a Gaussian
