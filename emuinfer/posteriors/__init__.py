"""All that knows ArviZ: posteriors on disk, diagnostics, smoothed importance weights."""
