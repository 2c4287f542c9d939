"""What a checkout session is and how it is kept."""
