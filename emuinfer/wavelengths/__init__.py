"""Air and vacuum, uniform grids."""
