"""VTAB+MD: Meta-Dataset v2 and VTAB v2 as one benchmark, in its two published profiles."""
