"""Faults to be planted in the package, one at a time; each names the checks that ought to see it."""
