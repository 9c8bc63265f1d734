"""Training of the demo's models on the scene world: `python -m demo.train NAME`."""
