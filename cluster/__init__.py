"""Where a run runs: the Ray session, what the cluster must have, jobs, manifests."""
