"""What requests and answers say in their heads, whatever they are about."""
