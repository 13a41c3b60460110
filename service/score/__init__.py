"""Batch scoring: files in, files out, nothing lost."""
