"""MuJoCo world: arm, gripper, table, blocks, cameras, tasks with success tests. No ROS.

Importing it settles MUJOCO_GL, because mujoco reads that once, when it is first imported.
"""

from vla_ros.sim.gl import choose_backend

choose_backend()
