"""Sets up the development and demonstration environment on one machine; standard library only."""
