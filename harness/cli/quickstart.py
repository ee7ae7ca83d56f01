"""``lite-bench quickstart``."""


def quickstart() -> None:
    """Placeholder replaced below."""
