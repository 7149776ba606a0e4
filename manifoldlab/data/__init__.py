"""One source of labelled samples a file."""
