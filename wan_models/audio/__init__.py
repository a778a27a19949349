"""Speech: from sound to the features that drive S2V-14B."""
