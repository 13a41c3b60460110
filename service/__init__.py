"""Serving a bundle: the HTTP application and the `rasid` command."""

import os

# The one product that numpy's OpenBLAS sees is the language identifier's: tiny, and on a busy machine a request waits ten
# milliseconds for the helper thread. Read when numpy is loaded; whoever sets it otherwise is left alone.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
