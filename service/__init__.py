"""Serving a bundle: the HTTP application and the `rasid` command."""
