"""`vla-ros bench recording`: what a recorder loses, what a crash and a loss of power leave."""
