"""The HTML page of a run, and the index of several."""
