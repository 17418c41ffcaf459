"""The networks of this project, plain torch, one a file. `spec` needs no torch; the rest does, and is imported late."""
