"""From the original archives of Meta-Dataset's sources to its records, without TensorFlow."""
