"""A person, or a script in the place of one, leads the tool: devices in, action chunks out. No ROS."""
