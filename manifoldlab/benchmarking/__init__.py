"""The instrument of benchmarks: what is timed is first shown to be right, and timed beside its floor."""
