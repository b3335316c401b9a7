"""A promptable segmenter of 2.8 million parameters that ships with segrl: `segmenters.load("tiny")`."""
