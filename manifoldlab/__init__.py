"""Known manifolds with exact Bayes classifiers, and probes that run on them and on images."""

import os

# Two OpenMP threads that wait for each other cost up to a hundredfold on small problems, and
# the number of threads changes the last bits; torch reads this at its first import.
os.environ.setdefault("OMP_NUM_THREADS", "1")

__version__ = "0.1.0"
