"""From a model spectrum at rest to observed pixels: Doppler shift, broadening, line spread function, continuum, noise."""
