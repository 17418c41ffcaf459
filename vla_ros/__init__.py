"""vla_ros: from a vision-language-action policy to a real arm, smoothly and inside its limits.

Importing this package imports neither rclpy nor torch; only `vla_ros.nodes` needs ROS.
"""

__version__ = "0.1.0"
