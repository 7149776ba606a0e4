"""One experiment a file: a claim, its Config, and `main`, which tests the claim and is recorded."""
