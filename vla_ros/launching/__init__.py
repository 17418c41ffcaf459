"""ROS 2 XML launch files without ROS: `resolve` makes a graph of nodes of one, `supervisor` starts and guards them."""
