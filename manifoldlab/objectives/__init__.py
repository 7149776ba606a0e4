"""One training objective a file: (model, batch, generator) to the mean loss of the samples."""
