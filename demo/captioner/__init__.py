"""What the demo's captioner starts from and learns from: scenes, priors that are partly wrong, and right captions."""
