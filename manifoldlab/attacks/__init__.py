"""One attack a file: a perturbation of samples, within a ball, that raises a loss."""
