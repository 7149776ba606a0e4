"""One attack a file: (model, batch, generator) to perturbed samples, of a `radius` in a `ball`."""
