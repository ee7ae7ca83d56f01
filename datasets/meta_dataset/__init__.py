"""Meta-Dataset: specifications, records and episodes of its sources."""
