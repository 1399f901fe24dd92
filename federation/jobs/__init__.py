"""What can be done together: one I/O-free state machine per side of each job."""
