"""`vla-ros bench policies`: what stands between a policy and its chunks, against floors in the same run."""
