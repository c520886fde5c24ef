"""The node tier of the test cluster: kind with real nodes, also where no image can be pulled."""
