"""Programs of the outer archive: qb-header, qb-seal, qb-manifest, qb-unseal, qb-store, qb-key."""
