"""One probe a file: (model, batch, geometry) -> a NamedTuple of per-sample tensors."""
