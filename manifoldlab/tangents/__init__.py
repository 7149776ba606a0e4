"""Tangent spaces estimated from samples or from a network: an Estimator a file."""
