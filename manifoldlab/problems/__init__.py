"""One problem with its exact Bayes classifier a file."""
