"""Jobs: files that are scored in the background, whatever happens to the processes that do it."""
