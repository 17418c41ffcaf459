"""How a policy writes actions: as tokens (bins, FAST) or as noise to be removed (diffusion, flow matching), with the
committed prefix of real-time chunking.

`bins`, `fast` and `committed` need no torch; `diffusion`, `flow_matching` and `prefix` do.
"""
