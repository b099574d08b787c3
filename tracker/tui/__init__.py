"""`penstock top`: the operator's terminal view, a process of its own over the tracker's API."""
