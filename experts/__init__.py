"""Vision experts: upright RGB images in, priors out; one expert a file."""
