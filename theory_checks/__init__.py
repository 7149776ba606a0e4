"""One theorem a file, named as a sentence; each defines LAW."""
