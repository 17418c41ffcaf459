"""Demonstrations out of the simulator: a scripted expert on ground truth, perturbed, recorded as a person's are."""
