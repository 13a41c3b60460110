"""Measuring a bundle: metrics, and reports that people can check."""
