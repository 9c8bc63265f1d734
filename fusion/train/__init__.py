"""Training the fusion models: data, templates, what is trained, the trainer, and the published recipes."""
