"""`vla-ros bench motion`: the motion path against bare kinematics, other solvers, its limits and a bare relay."""
