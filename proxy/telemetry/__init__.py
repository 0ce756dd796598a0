"""What is logged and counted, and how busy and well the process is."""
