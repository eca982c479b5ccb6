"""What tries to bring a removed concept back."""
