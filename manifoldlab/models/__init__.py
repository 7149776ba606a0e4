"""One architecture a file: (shape, num_classes) to an nn.Module of inputs in the data's own units."""
