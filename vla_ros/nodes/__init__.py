"""The ROS side: thin nodes over the core. Only this folder imports rclpy and message packages."""
