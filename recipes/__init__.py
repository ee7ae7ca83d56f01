"""Settings of published experiments, each a file for ``--config recipes/NAME.toml``."""
