"""The scene world: rendered pictures with exact truth, their little web, and small models with random weights."""
