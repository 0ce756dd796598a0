"""What browsers are shown: the page at `/` and the documentation at `/docs`."""
