"""A stand-in for lerobot at the interface that our adapter uses, so that this is tested where lerobot isn't installed.

It does what lerobot 0.4.4 does at that interface, with arithmetic simple enough to be done by hand in a test.
"""
