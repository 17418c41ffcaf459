"""What `vla-ros bench` runs: each figure against a floor or a peer that is measured in the same run."""
