"""Episodes: written as rosbag2 so that nothing is lost, read from anybody's bags, and made into datasets."""
