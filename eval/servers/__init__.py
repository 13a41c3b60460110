"""Servers that the same texts are sent to, each in a process of its own: Rasid's, and what people use otherwise."""
