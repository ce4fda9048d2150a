"""Hours of trouble in a few minutes; see ``__main__``."""
