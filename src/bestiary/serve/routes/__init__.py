"""What is answered at each path, a module for each subject."""
