"""Constants of nature and of the field, each once. CODATA 2018 (Tiesinga et al. 2021, Rev. Mod. Phys. 93, 025010)."""

import math

SPEED_OF_LIGHT = 299_792.458  # km/s, exact (SI)
# km/s, searched for a star's velocity: the fastest known, S5-HVS1, recedes at 1,017 (Koposov et al. 2020, MNRAS 491, 2465)
RV_RANGE = (-1100.0, 1100.0)
K_BOLTZMANN = 1.380649e-16  # erg/K, exact (SI)
ATOMIC_MASS = 1.66053907e-24  # g, the unit of atomic masses
EV_OVER_K = 11604.518  # K per eV
HC = 12398.42  # eV Å: energy times wavelength of a photon
HC_OVER_K = 1.438776877e8  # Å K, the second radiation constant
THETA_TEMPERATURE = 5040.0  # K: theta = 5040 K / T, by custom; log10(e) / k is 5039.8 K/eV
LN_SAHA = 35.42034  # ln[(2 pi m_e k)^(3/2) / h^3], cm^-3 K^-3/2
IONISATION_OF_HYDROGEN = 13.598  # eV (NIST Atomic Spectra Database)
LN_10 = math.log(10.0)
FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))  # of a Gaussian, 2.35482
