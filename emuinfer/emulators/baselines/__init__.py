"""Emulators that the transformer is measured against; some of them teach it."""
