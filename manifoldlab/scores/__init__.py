"""One score function a file: options -> a Reference, the gradient of the log density of noisy data."""
