"""The harness: nouns, registry, training and evaluation, records, run folders and the command line."""
