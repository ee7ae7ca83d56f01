"""The 18 tasks of VTAB-v2: where their data is, how it is labelled, cut and resized."""
