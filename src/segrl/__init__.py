"""segrl teaches a multimodal language model to segment by pointing.

Importing this package loads no torch.
"""

__version__ = "0.1.0"
