"""OpenVLA on transformers' own SigLIP, DINOv2 and Llama, from a local checkpoint folder in the hub's layout.

`policy` is what the registry makes; it and `model`, `checkpoint`, `adapters`, `quantisation` need torch and
transformers, the rest NumPy only. No code of a checkpoint is run and nothing is unpickled.
"""
