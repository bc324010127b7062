"""Small weights beside large ones: trained, saved and shared by themselves."""
