"""The demo page: ask, read the reasoning, correct boxes and points by hand, download the masks."""
