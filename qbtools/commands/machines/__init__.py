"""Programs that know domains: their metadata, plans, and the hosts that own them."""
