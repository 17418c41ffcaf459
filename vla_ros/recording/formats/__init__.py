"""Dataset formats, one module (or package) each: `create` and `open_dataset` of `vla_ros.recording.dataset.Format`."""
