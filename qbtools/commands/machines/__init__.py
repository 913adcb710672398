"""Programs for domains: their metadata, restore plans, and the hosts that own them."""
