"""What tracker, peer and edge have in common; it knows none of them."""

__version__ = "0.1.0"
SOFTWARE = f"penstock {__version__}"  # as nodes introduce themselves
