"""What training reads of a clip: versions of its sound, and log-mel features of each."""
