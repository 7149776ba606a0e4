"""One class-conditional law a file."""
