"""Hyper-parameters and options: what is refused, and in which words."""
