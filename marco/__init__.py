"""Reasoning distillation with trees of thought (arXiv 2503.01461)."""
