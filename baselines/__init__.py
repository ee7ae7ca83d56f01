"""Learners that fit at test time or serve as comparators."""
