"""What it costs: prices, rates, allocation and unit cost, decided without any I/O."""
