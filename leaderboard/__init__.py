"""Records to statistics to tables; needs no torch."""
