"""What came of episodes: the judge of joint limits, the log, the picture, the video, the figures. No ROS."""
