"""The demo page: ask, watch the reasoning, correct boxes and points by hand, take the masks along."""
