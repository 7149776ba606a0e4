"""One network a file: NAME(shape, num_classes, options) -> an nn.Module of inputs in the data's units."""
