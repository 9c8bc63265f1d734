"""What a run is: its configuration, its graph of stages, the store, the runner, the command line."""
