"""One source of labelled samples a file: Data, whose batches come in the order of a shuffle seed."""
