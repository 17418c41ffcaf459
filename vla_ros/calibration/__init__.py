"""What a lab measures of its cell: cameras, mounts, gripper, latencies, axes; residuals and a verdict. No ROS."""
