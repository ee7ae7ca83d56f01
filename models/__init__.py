"""Estimators, backbones, FiLM, heads and the meta-learners."""
