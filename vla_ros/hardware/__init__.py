"""What real arms make of what they are told, each at its own rate: streams, controllers, stops. No ROS."""
