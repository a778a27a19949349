"""Pictures: what the models see of a reference image."""
